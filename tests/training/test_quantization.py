"""Eight bits where they cost nothing, full precision where they would."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from mlops_assets.f1 import Answered
from mlops_assets.training import quantization
from mlops_assets.training.artefact import NETWORK, Predictor
from mlops_assets.training.examples import Examples
from mlops_assets.training.quantization import Cost, quantize
from tests.training.factories import ADDS_EXACTLY, examples


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "model"))


def answered_by(folder: Path, rows: Examples) -> tuple[Sequence[str], NDArray[np.float32], NDArray[np.int64]]:
    """Texts and features with the labels that the model itself gives, so that it is right on all of them."""
    probabilities = Predictor.load(folder, expected_digest=None).predict(rows.texts, rows.features).probabilities
    return rows.texts, rows.features, probabilities.argmax(axis=1).astype(np.int64)


def test_a_network_that_answers_alike_in_eight_bits_is_replaced(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not ADDS_EXACTLY:  # random weights are large, unlike those of a real encoder
        monkeypatch.setattr(quantization, "MIN_AGREEMENT", 0.5)
        monkeypatch.setattr(quantization, "MAX_F1_LOSS", 0.5)
    made = quantize(model, *answered_by(model, examples(200, seed=1)))
    assert made.precision == "int8"
    assert not ADDS_EXACTLY or made.cost == Cost(1.0, 0.0)
    assert b"MatMulInteger" in (model / NETWORK).read_bytes()
    assert Predictor.load(model, expected_digest=made.digest).labels


@pytest.mark.parametrize(("limit", "value"), [("MIN_AGREEMENT", 1.01), ("MAX_F1_LOSS", -0.001)])
def test_a_network_that_eight_bits_would_hurt_stays_as_it_is(
    model: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    monkeypatch.setattr(quantization, limit, value)  # whatever the processor
    before = (model / NETWORK).read_bytes()
    made = quantize(model, *answered_by(model, examples(200, seed=1)))
    assert made.precision == "fp32"
    assert (model / NETWORK).read_bytes() == before
    assert Predictor.load(model, expected_digest=made.digest).labels
    assert [path.name for path in model.parent.iterdir()] == ["model"]


@pytest.mark.slow
def test_that_the_gates_rows_choose_the_precision_leaves_its_bound_at_its_rate() -> None:
    """H0 at its edge: true weighted F1 = 0.92 in both precisions, of which answers of a few rows are drawn anew."""
    runs, passed = 400, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        truth = rng.integers(0, 7, 600)
        full = answered(truth, 0.92, rng)
        small = np.where(rng.random(len(truth)) < 0.04, answered(truth, 0.92, rng), full)
        chosen = small if Cost.of(truth, full, small, 7).bearable else full
        rows = Answered.of(truth, [chosen], 7).with_customer_lost()
        passed += bool(np.quantile(rows.resampled(seed, 300).weighted[0], 0.05) > 0.92)
    assert passed <= binom.ppf(0.999, runs, 0.06)


def answered(truth: NDArray[np.int64], right: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Answers of which a share is right and the others are any other label."""
    others = (truth + rng.integers(1, 7, len(truth))) % 7
    return np.where(rng.random(len(truth)) < right, truth, others)
