"""The expected calibration error tells an honest confidence from a boast."""

import numpy as np
import pytest

from mlops_assets.release.calibration import expected_calibration_error


def two_labels(confidence: np.ndarray) -> np.ndarray:
    return np.column_stack([confidence, 1 - confidence])


def test_an_honest_confidence_has_little_error() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1, 20_000)
    truth = (rng.random(20_000) > confidence).astype(int)
    assert expected_calibration_error(two_labels(confidence), truth) < 0.015


def test_a_boast_has_the_size_of_the_boast() -> None:
    truth = np.arange(1_000) % 2
    assert expected_calibration_error(two_labels(np.full(1_000, 0.99)), truth) == pytest.approx(0.49, abs=0.03)


def test_fewer_rows_than_bins_is_no_reason_to_fail() -> None:
    assert expected_calibration_error(two_labels(np.array([0.9])), np.array([0])) == pytest.approx(0.1)
