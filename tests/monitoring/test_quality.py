"""Realised quality counts a label from its known time on, and its figures are the field's."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from mlops_assets.monitoring.quality import Quality, realised

DAY = datetime(2026, 3, 1, tzinfo=UTC)
LABELS = ("complaint", "query", "refund")


def predictions(*rows: tuple[datetime, str, str | None, datetime | None]) -> pl.DataFrame:
    moment = pl.Datetime("us", "UTC")
    schema = {"event_timestamp": moment, "predicted": pl.String, "label": pl.String, "label_timestamp": moment}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(customer_id=pl.lit(None, pl.String))


def test_a_label_counts_from_its_known_time_on() -> None:
    noon, tomorrow, later = (DAY + timedelta(hours=h) for h in (12, 36, 60))
    frame = predictions((noon, "refund", "refund", tomorrow), (noon, "query", "refund", later))
    assert realised(frame, as_of=noon) == Quality(predictions=2, labels=0)
    assert realised(frame, as_of=tomorrow).accuracy == 1.0
    assert realised(frame, as_of=later).accuracy == 0.5


@pytest.mark.slow
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


def test_a_customer_who_writes_ten_times_tells_less_than_ten_who_write_once() -> None:
    day = predictions(*[(DAY, "query", "query", DAY)] * 300)
    by_few = day.with_columns(customer_id=pl.int_range(pl.len()).floordiv(10).cast(pl.String))
    alone, few = realised(day, as_of=DAY), realised(by_few, as_of=DAY)
    assert (alone.f1_low or 0.0) > 0.99
    assert (few.f1_low or 1.0) == pytest.approx(realised(day.head(30), as_of=DAY).f1_low, abs=0.01)
