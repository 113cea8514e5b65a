"""The temperature undoes over-confidence and never changes an answer."""

from __future__ import annotations

import numpy as np
import pytest

from mlops_assets.training.artefact import softmax
from mlops_assets.training.calibration import cross_entropy, fit_temperature


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_it_finds_the_factor_by_which_logits_are_too_large(factor: float) -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, (20_000, 4)).astype(np.float32)
    chances = softmax(logits, 1.0)
    labels = (rng.random((20_000, 1)) > chances.cumsum(axis=1)[:, :-1]).sum(axis=1)
    assert fit_temperature(logits * np.float32(factor), labels) == pytest.approx(factor, rel=0.05)


def test_perfect_answers_keep_the_temperature_within_its_bounds() -> None:
    logits = np.eye(3, dtype=np.float32)
    assert 0.1 <= fit_temperature(logits, np.arange(3)) <= 10.0


def test_cross_entropy_of_even_odds_is_log_n() -> None:
    assert cross_entropy(np.zeros((5, 4), np.float32), np.arange(5) % 4) == pytest.approx(np.log(4))
