"""Correctness over time: it rarely cries wolf however often one looks, and is fast when a version gets worse."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from mlops_assets.monitoring.correctness import _RATIOS, MAX_LOG_E, follow_correctness, log_e_path
from tests.monitoring.test_quality import DAY

ALPHA = 0.05
PROMISED = 0.91


def wrong(seed: int, accuracy: float, labels: int) -> np.ndarray:
    return np.random.default_rng(seed).random(labels) > accuracy


def delay(seed: int, good: int, accuracy: float) -> float:
    """Labels from a change (after `good` labels at 0.96) until it is found at ALPHA; infinite if not within 3,000."""
    path = log_e_path(np.concatenate([wrong(seed, 0.96, good), wrong(seed + 10_000, accuracy, 3000)]), PROMISED)
    over = np.flatnonzero(path >= -np.log(ALPHA))
    return float(over[0] - good + 1) if len(over) else np.inf


@pytest.mark.slow
def test_a_version_exactly_at_its_promise_is_ever_called_worse_at_most_as_often_as_stated() -> None:
    """400 seeded lives of 3,000 labels, looked at after each; the count may exceed 5 % only by chance."""
    alarms = sum((log_e_path(wrong(run, PROMISED, 3000), PROMISED) >= -np.log(ALPHA)).any() for run in range(400))
    assert alarms <= binom.ppf(0.999, 400, ALPHA)


def test_that_holds_as_well_where_the_accuracy_varies_above_the_promise() -> None:
    swings = 0.95 + 0.04 * np.sin(np.arange(3000) / 50)
    lives = (np.random.default_rng(run).random(3000) > swings for run in range(200))
    alarms = sum((log_e_path(life, PROMISED) >= -np.log(ALPHA)).any() for life in lives)
    assert alarms <= binom.ppf(0.999, 200, ALPHA)


@pytest.mark.parametrize(("accuracy", "labels"), [(0.5, 35), (0.75, 110), (0.83, 320)])
def test_the_median_delay_is_short_and_shorter_the_worse_it_gets(accuracy: float, labels: int) -> None:
    assert np.median([delay(run, 300, accuracy) for run in range(60)]) <= labels


@pytest.mark.slow
def test_a_long_good_time_costs_only_its_logarithm() -> None:
    """A change after 200 times as many labels: log(200²) more evidence, at 0.11 nats a label some 96 labels."""
    early, late = (np.median([delay(run, good, 0.75) for run in range(40)]) for good in (100, 20_000))
    assert late <= early + 130


def test_the_mixture_over_beginnings_is_the_sum_that_it_stands_for() -> None:
    """Against a plain loop over every beginning and every ratio."""
    seen, q = wrong(3, 0.8, 70), 1 - PROMISED
    factors = np.where(seen[:, None], _RATIOS, 1.0) / (1 - q + q * _RATIOS)
    bets = [factors[20 * k :].prod(axis=0).mean() / ((k + 1) * (k + 2)) for k in range(4)]
    e = sum(bets) + 1 / 5  # the weight of the bets that are still to come
    assert log_e_path(seen, PROMISED)[-1] == pytest.approx(np.log(e))


def test_it_stays_finite_over_many_labels() -> None:
    path = log_e_path(np.ones(200_000, bool), PROMISED)
    assert path.max() == MAX_LOG_E
    assert np.isfinite(path).all()


def labelled(answers: list[tuple[int, str, int | None]]) -> pl.DataFrame:
    """Rows (hour of the event, label, hour at which it was known) that were answered with `refund`."""
    rows = [
        {
            "message_id": f"m{number}",
            "predicted": "refund",
            "label": label if known is not None else None,
            "event_timestamp": DAY + timedelta(hours=event),
            "label_timestamp": DAY + timedelta(hours=known) if known is not None else None,
        }
        for number, (event, label, known) in enumerate(answers)
    ]
    return pl.DataFrame(rows, schema_overrides={"label": pl.String, "label_timestamp": pl.Datetime("us", "UTC")})


def test_a_label_counts_from_its_known_time_on_and_never_changes_what_was_seen() -> None:
    frame = labelled([(1, "query", 50), (2, "refund", 3), (3, "query", 4), (4, "query", None)])
    early, late = (follow_correctness(frame, PROMISED, as_of=DAY + timedelta(hours=h)) for h in (10, 60))
    assert (early.labels, early.wrong) == (2, 1)
    assert (late.labels, late.wrong) == (3, 2)


def test_it_says_since_when_it_got_worse() -> None:
    frame = labelled([(h, "refund" if h < 100 else "query", h + 1) for h in range(130)])
    found = follow_correctness(frame, PROMISED, as_of=DAY + timedelta(days=9))
    assert found.p_value < 0.001
    assert found.since is not None
    assert abs(found.since - (DAY + timedelta(hours=100))) <= timedelta(hours=2)


def test_a_version_that_is_right_again_is_no_longer_accused() -> None:
    path = log_e_path(np.concatenate([wrong(1, 0.96, 200), wrong(2, 0.5, 100), wrong(3, 0.97, 600)]), PROMISED)
    assert path[299] > np.log(1000)
    assert path[-1] < 0


def test_no_labels_say_nothing_and_a_promise_of_certainty_is_refused() -> None:
    nothing = follow_correctness(labelled([(1, "query", None)]), PROMISED, as_of=DAY)
    assert (nothing.labels, nothing.p_value, nothing.since) == (0, 1.0, None)
    with pytest.raises(ValueError, match="promised accuracy 1"):
        log_e_path(np.ones(1, bool), 1.0)
