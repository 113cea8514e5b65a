from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.data.customer_features import customer_features, validate_events
from mlops_assets.data.tables import read_table, to_events
from mlops_assets.spec import FEATURES
from tests.data.factories import events, faults, real


def test_the_features_are_those_that_a_spec_may_name() -> None:
    assert customer_features(events([("c", 0, 2, 10, 0, 0)])).columns[3:] == list(FEATURES)


def test_figures_cover_ninety_days_up_to_and_with_the_event() -> None:
    frame = events([("c", 0, 2, 10, 0, 0), ("c", 89.999, 2, 30, 0, 0), ("c", 90, 1, 5, 0, 0), ("d", 90, 1, 7, 0, 0)])
    found = customer_features(frame)
    assert found.select("customer_id", "orders_90d", "spend_90d", "mean_basket_90d").rows() == [
        ("c", 1.0, 10.0, 10.0),
        ("c", 2.0, 40.0, 20.0),
        ("c", 2.0, 35.0, 17.5),
        ("d", 1.0, 7.0, 7.0),
    ]
    assert found["tenure_days"].to_list() == pytest.approx([0, 89.999, 90, 0])


def test_a_pure_return_is_no_order_and_spends_nothing() -> None:
    found = customer_features(events([("c", 0, 1, -4.65, 1, 4.65), ("c", 1, 3, 15, 1, 5)]))
    assert found.select(FEATURES).rows() == [(0.0, 0.0, 1.0, 0.0, 0.0), (1.0, 20.0, 0.5, 20.0, 1.0)]


def test_events_of_one_moment_count_together_in_one_row() -> None:
    found = customer_features(events([("c", 0, 1, 10, 0, 0), ("c", 0, 1, 20, 0, 0)]))
    assert found.select("orders_90d", "spend_90d").rows() == [(2.0, 30.0)]


def test_a_row_is_known_when_the_event_happens() -> None:
    found = customer_features(events([("c", 0, 1, 10, 0, 0), ("c", 5, 1, 10, 0, 0)]))
    assert found["created_timestamp"].equals(found["event_timestamp"].rename("created_timestamp"))


def test_a_row_is_not_known_before_every_event_in_it_is() -> None:
    frame = events([("c", 0, 1, 10, 0, 0), ("c", 5, 1, 10, 0, 0), ("c", 100, 1, 10, 0, 0)])
    delay = pl.Series([timedelta(days=7), timedelta(0), timedelta(hours=1)])
    found = customer_features(frame.with_columns((pl.col("event_timestamp") + delay).alias("known_timestamp")))
    assert (found["created_timestamp"] - found["event_timestamp"]).to_list() == [
        timedelta(days=7),
        timedelta(days=2),
        timedelta(hours=1),
    ]


@pytest.mark.parametrize(
    ("column", "value", "check"),
    [
        ("customer_id", None, "present"),
        ("event_timestamp", None, "present"),
        ("event_timestamp", "2026-03-01 12:00", "readable"),
        ("lines", -1, "within_range"),
        ("lines", 1.5, "readable"),
        ("qty", "many", "readable"),
        ("amount", float("nan"), "within_range"),
        ("amount", float("inf"), "within_range"),
        ("amount", None, "present"),
        ("return_lines", 2, "within_range"),
        ("return_amount", -1.0, "within_range"),
    ],
)
def test_each_bad_event_is_quarantined_with_its_check(column: str, value: Any, check: str) -> None:
    frame = events([("c", 0, 1, 10, 0, 0)]).with_columns(pl.Series(column, [value]))
    validated = validate_events(to_events(frame))
    assert validated.good.is_empty()
    assert faults(validated.bad) == [(0, column, check)]


def test_an_event_cannot_be_known_before_it_happens() -> None:
    frame = events([("c", 1, 1, 10, 0, 0)]).with_columns(
        known_timestamp=pl.col("event_timestamp") - pl.duration(seconds=1)
    )
    assert faults(validate_events(frame).bad) == [(0, "known_timestamp", "after_event")]


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 200), st.integers(1, 5), st.integers(0, 50), st.integers(0, 1)),
        min_size=1,
        max_size=15,
    )
)
@settings(max_examples=50)
def test_rolling_figures_equal_those_counted_by_hand(rows: list[tuple[str, int, int, int, int]]) -> None:
    frame = events([(c, day, lines, amount, returned, returned * 2) for c, day, lines, amount, returned in rows])
    found = customer_features(frame)
    assert found.height == len({(c, day) for c, day, *_ in rows})
    for row in found.iter_rows(named=True):
        end = round((row["event_timestamp"] - frame["event_timestamp"].min()).total_seconds() / 86_400)
        end += min(day for _, day, *_ in rows)
        window = [r for r in rows if r[0] == row["customer_id"] and end - 90 < r[1] <= end]
        assert row["orders_90d"] == sum(lines > returned for _, _, lines, _, returned in window)
        assert row["spend_90d"] == sum(amount + 2 * returned for *_, amount, returned in window)
        assert row["return_share_90d"] == sum(r[4] for r in window) / sum(r[2] for r in window)


def test_the_real_events_keep_the_contract_and_the_figures_their_ranges() -> None:
    validated = validate_events(to_events(read_table(real("customer_events.parquet"))))
    assert validated.bad.is_empty()
    found = customer_features(validated.good)
    assert found.select(pl.col(FEATURES).is_finite().all()).row(0) == (True,) * 5
    assert found.select(pl.col(FEATURES).min() >= 0).row(0) == (True,) * 5
    assert found["return_share_90d"].max() <= 1
    assert not found.select("customer_id", "event_timestamp").is_duplicated().any()
