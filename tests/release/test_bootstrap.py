"""F1 as the field computes it, and a bootstrap that equals resampling rows."""

import time

import numpy as np
import pytest
from sklearn.metrics import f1_score

from mlops_assets.release.bootstrap import bootstrap_f1, f1_scores

LABELS = 7


def answers(rows: int, accuracy: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, LABELS, rows)
    wrong = rng.random(rows) > accuracy
    return truth, np.where(wrong, (truth + rng.integers(1, LABELS, rows)) % LABELS, truth)


@pytest.mark.parametrize("seed", range(5))
def test_f1_equals_scikit_learns(seed: int) -> None:
    truth, predicted = answers(60, 0.8, seed)
    ours = f1_scores(truth, [predicted], LABELS)
    assert ours.weighted[0] == pytest.approx(f1_score(truth, predicted, average="weighted", zero_division=0))
    theirs = f1_score(truth, predicted, average=None, labels=range(LABELS), zero_division=0)
    assert ours.per_label[0] == pytest.approx(theirs)


def test_a_label_that_never_occurs_counts_zero() -> None:
    truth = np.zeros(10, int)
    assert f1_scores(truth, [truth], 3).per_label[0].tolist() == [1.0, 0.0, 0.0]


def test_the_distribution_is_that_of_resampled_rows() -> None:
    truth, predicted = answers(400, 0.9, 1)
    rng = np.random.default_rng(2)
    picks = [rng.integers(0, 400, 400) for _ in range(600)]
    by_rows = np.array([f1_scores(truth[pick], [predicted[pick]], LABELS).weighted[0] for pick in picks])
    ours = bootstrap_f1(truth, [predicted], LABELS, 2000, 3).weighted[0]
    assert ours.mean() == pytest.approx(by_rows.mean(), abs=0.003)
    assert ours.std() == pytest.approx(by_rows.std(), rel=0.15)


def test_two_models_share_their_draws() -> None:
    truth, predicted = answers(300, 0.9, 4)
    drawn = bootstrap_f1(truth, [predicted, predicted], LABELS, 500, 5).weighted
    assert np.array_equal(drawn[0], drawn[1])


def test_the_same_seed_gives_the_same_draws() -> None:
    truth, predicted = answers(300, 0.9, 6)
    first, second = (bootstrap_f1(truth, [predicted], LABELS, 100, 7).weighted for _ in range(2))
    assert np.array_equal(first, second)


def test_two_thousand_paired_resamples_of_2500_rows_take_well_under_a_second() -> None:
    truth, ours = answers(2_500, 0.95, 8)
    started = time.process_time()
    bootstrap_f1(truth, [ours, answers(2_500, 0.95, 9)[1]], LABELS, 2000, 10)
    assert time.process_time() - started < 0.9
