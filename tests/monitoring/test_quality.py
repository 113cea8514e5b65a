"""Realised quality counts a label from its known time on, and its figures are the field's."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from mlops_assets.monitoring.quality import Quality, quality_by_day, realised

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
    quality = realised(predictions(*((DAY, answer, truth, DAY) for truth, answer in pairs)), as_of=DAY)
    actual, predicted = [truth for truth, _ in pairs], [answer for _, answer in pairs]
    assert quality.f1_weighted == pytest.approx(f1_score(actual, predicted, average="weighted", zero_division=0))
    assert quality.accuracy == pytest.approx(accuracy_score(actual, predicted))


def test_the_bounds_enclose_the_figure_and_know_of_errors_not_seen() -> None:
    quality = realised(predictions(*[(DAY, "query", "query", DAY)] * 30), as_of=DAY)
    assert quality.f1_low is not None
    assert quality.f1_low < 0.97
    assert quality.f1_weighted == quality.f1_high == 1.0
