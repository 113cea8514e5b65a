"""Performance from confidences: it covers as often as it says where it can, and shows its error where it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from mlops_assets.f1 import weighted_f1
from mlops_assets.monitoring.estimate import Calibration, Estimate, estimate, estimate_error, measure_calibration
from mlops_assets.monitoring.quality import Quality, realised
from mlops_assets.monitoring.windows import read_window, write_window
from tests.monitoring.test_quality import DAY

LABELS = 7
SHARES = np.array([0.05, 0.05, 0.25, 0.15, 0.25, 0.2, 0.05])


def answers(rng: np.random.Generator, rows: int, *, sharpness: float = 3.0, temperature: float = 1.0) -> np.ndarray:
    """Softmax outputs (rows, 7) of a model that is surer of some messages than of others."""
    topic = rng.choice(LABELS, size=rows, p=SHARES)
    logits = rng.normal(size=(rows, LABELS)) + sharpness * rng.gamma(2, 1, size=(rows, 1)) * np.eye(LABELS)[topic]
    return softmax(logits / temperature)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def truths(rng: np.random.Generator, probabilities: np.ndarray) -> np.ndarray:
    """True labels that follow the probabilities: the world of a calibrated model."""
    return (rng.random((len(probabilities), 1)) > probabilities.cumsum(axis=1)).sum(axis=1)


def seen(probabilities: np.ndarray, truth: np.ndarray) -> Quality:
    """What the labels say of these answers."""
    names = [str(label) for label in truth]
    predicted = [str(label) for label in probabilities.argmax(axis=1)]
    frame = pl.DataFrame({"label": names, "predicted": predicted})
    return realised(frame.with_columns(customer_id=None, label_timestamp=pl.lit(DAY)), as_of=DAY)


def world(run: int, held_out: int = 1500, rows: int = 200) -> tuple[Calibration, np.ndarray, np.random.Generator]:
    """A calibrated model's held-out rows, and a window that is harder than these were."""
    rng = np.random.default_rng([20260301, run])
    before = answers(rng, held_out)
    return measure_calibration(before, truths(rng, before)), answers(rng, rows, sharpness=2.0), rng


@pytest.mark.slow
def test_a_calibrated_model_is_estimated_within_the_interval_as_often_as_it_says() -> None:
    """100 seeded windows; the misses may exceed 5 % only by chance (one in a thousand)."""
    misses = {"f1": 0, "accuracy": 0}
    for run in range(100):
        calibration, window, rng = world(run)
        found, quality = estimate(window, calibration, seed=run), seen(window, truths(rng, window))
        misses["f1"] += not found.f1_low <= (quality.f1_weighted or 0) <= found.f1_high
        misses["accuracy"] += not found.accuracy_low <= (quality.accuracy or 0) <= found.accuracy_high
    most = binom.ppf(0.999, 100, 0.05)
    assert misses["f1"] <= most
    assert misses["accuracy"] <= most


@pytest.mark.slow
def test_an_overconfident_model_is_corrected_by_what_the_held_out_rows_showed() -> None:
    """Temperature 0.5: it says far more than it knows. Plain confidence is off by points, the estimate is not."""
    plain, corrected, misses = [], [], 0
    for run in range(40):
        rng = np.random.default_rng([7, run])
        honest = answers(rng, 1500, sharpness=1.0), answers(rng, 300, sharpness=1.0)
        boasting = [table**2 / (table**2).sum(axis=1, keepdims=True) for table in honest]
        calibration = measure_calibration(boasting[0], truths(rng, honest[0]))
        error = estimate_error(estimate(boasting[1], calibration), seen(boasting[1], truths(rng, honest[1])))
        plain.append(boasting[1].max(axis=1).mean() - honest[1].max(axis=1).mean())
        corrected.append(error.accuracy)
        misses += not error.covered
    assert np.mean(plain) > 0.08
    assert abs(np.mean(corrected)) < 0.015
    assert misses <= binom.ppf(0.999, 40, 0.05)


@pytest.mark.slow
def test_a_concept_shift_is_not_seen_by_the_estimate_but_by_its_error() -> None:
    """The same messages come to mean something else: confidences stay, labels do not."""
    errors = []
    for run in range(20):
        calibration, window, rng = world(run)
        moved = (truths(rng, window) + (rng.random(len(window)) < 0.3)) % LABELS
        errors.append(estimate_error(estimate(window, calibration), seen(window, moved)))
    assert not any(error.covered for error in errors)
    assert min(error.f1_weighted for error in errors) > 0.1


def test_a_window_the_model_is_less_sure_of_is_expected_to_be_worse() -> None:
    calibration, harder, rng = world(1)
    ordinary = estimate(answers(rng, 200), calibration)
    assert estimate(harder, calibration).f1_high < ordinary.f1_weighted


def test_fewer_held_out_rows_and_fewer_rows_say_less() -> None:
    def width(held_out: int, rows: int) -> float:
        calibration, window, _ = world(3, held_out, rows)
        found = estimate(window, calibration)
        return found.f1_high - found.f1_low

    assert width(100, 2000) > 1.5 * width(4000, 2000)
    assert width(4000, 50) > 1.5 * width(4000, 2000)


def test_the_expected_figures_are_those_of_the_expected_confusion_matrix() -> None:
    """Worked by hand: two labels, held-out accuracy equal to confidence in the one bin there is."""
    table = np.array([[0.75, 0.25]] * 40 + [[0.25, 0.75]] * 20)
    held_out = Calibration(np.empty(0), np.array([4e6]), np.array([3e6]), np.array([0.75]))
    found = estimate(table, held_out)
    expected = np.array([[30, 5], [10, 15]])  # true by predicted
    assert found.accuracy == pytest.approx(45 / 60, abs=1e-6)
    assert found.f1_weighted == pytest.approx(weighted_f1(expected[None])[0], abs=1e-6)


@pytest.mark.slow
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 9))
def test_bounds_are_in_order_and_shares_whatever_comes(seed: int, rows: int, labels: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.dirichlet(np.full(labels, 0.2), size=rows)
    calibration = measure_calibration(table, rng.integers(labels, size=rows))
    found = estimate(table, calibration)
    assert 0 <= found.accuracy_low <= found.accuracy_high <= 1
    assert 0 <= found.f1_low <= found.f1_high <= 1
    assert found == estimate(table, calibration)


def test_answers_that_are_always_certain_are_estimated_too() -> None:
    certain = np.eye(3)[[0, 1, 2, 0] * 30]
    calibration = measure_calibration(certain, np.array([0, 1, 2, 1] * 30))
    assert estimate(certain, calibration).accuracy == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("table", [np.empty((0, 3)), np.array([[np.nan, 1.0]]), np.ones((4, 1)), np.ones(4)])
def test_what_are_no_probabilities_is_refused(table: np.ndarray) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        measure_calibration(table, np.zeros(len(table), int))


def test_an_error_needs_the_labels_of_all_rows() -> None:
    found = Estimate(3, 0.9, 0.8, 1.0, 0.9, 0.8, 1.0)
    with pytest.raises(ValueError, match="3 rows against 2 labels"):
        estimate_error(found, Quality(3, 2, 0.5, 0.5, 0.1, 0.9))


def test_the_calibration_survives_being_written(tmp_path: Path) -> None:
    calibration, window, _ = world(5)
    write_window(tmp_path, "calibration", DAY, calibration.to_dict())
    read = Calibration.from_dict(read_window(tmp_path, "calibration", DAY) or {})
    assert estimate(window, read) == estimate(window, calibration)
