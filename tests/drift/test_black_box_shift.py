from __future__ import annotations

import numpy as np
import pytest

from mlops_assets.drift.black_box_shift import black_box_shift
from mlops_assets.drift.result import DriftInputError, Limits
from mlops_assets.verdict import Verdict
from tests.drift.simulate import alarms, at_most

LABELS = ("query", "refund", "other")


def softmax(rng: np.random.Generator, rows: int, weights: tuple[float, ...] = (2, 1, 1)) -> np.ndarray:
    return rng.dirichlet(weights, rows)


def test_the_joint_result_comes_first_and_names_the_label_that_moved_most() -> None:
    rng = np.random.default_rng(0)
    joint, *per_label = black_box_shift(softmax(rng, 1000), softmax(rng, 200, (2, 1, 6)), LABELS)
    assert joint.verdict is Verdict.FAIL
    assert joint.message == "largest in probability of other"
    assert [r.column for r in per_label] == [f"probability of {label}" for label in LABELS]


@pytest.mark.slow
def test_false_alarms_stay_within_alpha_over_all_labels() -> None:
    def judge(rng: np.random.Generator) -> bool:
        return black_box_shift(softmax(rng, 200), softmax(rng, 60), LABELS, Limits(0.05))[0].verdict is Verdict.FAIL

    assert alarms(judge, 200) <= at_most(0.05, 200)


def test_too_few_rows_is_one_result_without_a_verdict() -> None:
    rng = np.random.default_rng(0)
    (only,) = black_box_shift(softmax(rng, 100), softmax(rng, 3), LABELS)
    assert only.verdict is Verdict.INSUFFICIENT_DATA


@pytest.mark.parametrize("bad", [np.ones((40, 2)), np.full((40, 3), np.nan), np.ones(40)])
def test_outputs_that_are_no_probabilities_of_these_labels_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(DriftInputError, match="probabilities"):
        black_box_shift(softmax(np.random.default_rng(0), 100), bad, LABELS)
