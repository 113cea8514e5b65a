"""Realised quality counts a label from its known time on, and its bounds cover as often as they say."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import accuracy_score, f1_score

from mlops_assets.monitoring.quality import Quality, confusion, f1_bounds, quality_by_day, realised, weighted_f1

DAY = datetime(2026, 3, 1, tzinfo=UTC)
LABELS = ("complaint", "query", "refund")


def predictions(*rows: tuple[datetime, str, str | None, datetime | None]) -> pl.DataFrame:
    moment = pl.Datetime("us", "UTC")
    schema = {"event_timestamp": moment, "predicted": pl.String, "label": pl.String, "label_timestamp": moment}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_a_label_counts_from_its_known_time_on() -> None:
    noon, tomorrow, later = (DAY + timedelta(hours=h) for h in (12, 36, 60))
    frame = predictions((noon, "refund", "refund", tomorrow), (noon, "query", "refund", later))
    assert realised(frame, as_of=noon) == Quality(predictions=2, labels=0)
    assert realised(frame, as_of=tomorrow).accuracy == 1.0
    assert realised(frame, as_of=later).accuracy == 0.5


def test_days_are_cut_in_event_time_and_a_backfill_says_the_same() -> None:
    hours = range(0, 72, 6)
    frame = predictions(*((DAY + timedelta(hours=h), "query", "query", DAY + timedelta(hours=h + 20)) for h in hours))
    as_of = DAY + timedelta(days=2)
    days = quality_by_day(frame, as_of=as_of)
    assert [(d.day, d.quality.predictions, d.quality.labels) for d in days] == [
        (date(2026, 3, 1), 4, 4),
        (date(2026, 3, 2), 4, 1),
        (date(2026, 3, 3), 1, 0),
    ]
    assert days == quality_by_day(frame.sample(fraction=1.0, shuffle=True, seed=1), as_of=as_of)


def test_no_predictions_are_no_days_and_no_zone_is_refused() -> None:
    assert quality_by_day(predictions(), as_of=DAY) == []
    with pytest.raises(ValueError, match="no time zone"):
        quality_by_day(predictions(), as_of=datetime(2026, 3, 1))


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=40))
def test_the_figures_are_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    actual, predicted = [a for a, _ in pairs], [p for _, p in pairs]
    counts = confusion(actual, predicted)
    expected = f1_score(actual, predicted, average="weighted", zero_division=0)
    assert weighted_f1(counts[None])[0] == pytest.approx(expected)
    assert np.trace(counts) / counts.sum() == pytest.approx(accuracy_score(actual, predicted))


def seven_labels(accuracy: float) -> np.ndarray:
    """Shares (7, 7) of actual by predicted label; wrong answers fall on the other labels alike."""
    support = np.array([0.05, 0.05, 0.25, 0.15, 0.25, 0.2, 0.05])
    wrong = (1 - accuracy) * support[:, None] * (1 - np.eye(7)) / 6
    return np.diag(support * accuracy) + wrong


@pytest.mark.parametrize(("accuracy", "rows"), [(0.75, 200), (0.95, 30)])
def test_each_bound_misses_the_truth_in_at_most_five_per_cent(accuracy: float, rows: int) -> None:
    """200 seeded samples; the count of misses may exceed 5 % only by chance (one in a thousand)."""
    shares = seven_labels(accuracy)
    true_f1 = weighted_f1(np.round(shares * 1e6).astype(np.int64)[None])[0]
    rng, runs = np.random.default_rng(20260301), 200
    samples = rng.multinomial(rows, shares.ravel() / shares.sum(), size=runs).reshape(runs, 7, 7)
    bounds = [f1_bounds(sample, seed=run) for run, sample in enumerate(samples)]
    most = binom.ppf(0.999, runs, 0.05)
    assert sum(low > true_f1 for low, _ in bounds) <= most
    assert sum(high < true_f1 for _, high in bounds) <= most


def test_a_flawless_sample_of_one_label_does_not_prove_a_flawless_model() -> None:
    low, high = f1_bounds(confusion(["query"] * 30, ["query"] * 30), seed=1)
    assert low < 0.97
    assert high == 1.0
