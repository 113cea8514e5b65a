from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.data.customer_features import customer_features, merge_events, validate_events
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


def known_after(frame: pl.DataFrame, *days: float) -> pl.DataFrame:
    """Customer events, each known so many days after it happened."""
    delay = pl.Series([timedelta(days=late) for late in days], dtype=pl.Duration("us"))
    return frame.with_columns(known_timestamp=pl.col("event_timestamp") + delay)


def test_an_event_known_late_counts_from_then_on_and_hides_nothing_before() -> None:
    frame = events([("c", 0, 1, 10, 0, 0), ("c", 5, 1, 20, 0, 0), ("c", 100, 1, 40, 0, 0)])
    found = customer_features(known_after(frame, 7, 0, 1))
    first = frame["event_timestamp"][0]
    assert found.select("event_timestamp", "created_timestamp", "spend_90d", "tenure_days").rows() == [
        (first + timedelta(days=5), first + timedelta(days=5), 20.0, 0.0),
        (first + timedelta(days=5), first + timedelta(days=7), 30.0, 5.0),
        (first + timedelta(days=100), first + timedelta(days=101), 40.0, 100.0),
    ]


def test_what_left_the_window_leaves_no_rounding_error_behind() -> None:
    frame = events([("c", 0, 1, 0.1, 0, 0), ("c", 1, 1, 0.7, 0, 0), ("c", 200, 1, -5, 1, 5)])
    assert customer_features(frame)["spend_90d"].to_list() == [0.1, 0.8, 0.0]


def test_what_exports_have_in_common_counts_once_and_what_one_of_them_has_twice_counts_twice() -> None:
    bought = ("c", 1, 1, 10, 0, 0)
    first = events([bought, bought, ("c", 2, 1, 5, 0, 0)])
    second = events([bought, ("c", 2, 1, 5, 0, 0), ("c", 3, 1, 7, 0, 0), ("d", 1, 1, 10, 0, 0)])
    merged = merge_events([first, second])
    assert merged.sort("customer_id", "event_timestamp")["amount"].to_list() == [10, 10, 5, 7, 10]
    assert customer_features(merged).equals(customer_features(merge_events([second, first, second])))


def test_an_event_that_is_exported_again_was_known_when_it_was_told_first() -> None:
    bought = events([("c", 1, 1, 10, 0, 0)])
    told = [known_after(bought, 7), known_after(bought, 3)]
    assert merge_events(told)["known_timestamp"].to_list() == told[1]["known_timestamp"].to_list()
    assert merge_events([*told, bought])["known_timestamp"].to_list() == bought["event_timestamp"].to_list()


def test_of_no_events_there_are_no_figures() -> None:
    assert customer_features(events([("c", 0, 1, 10, 0, 0)]).clear()).is_empty()


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


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(
            *(st.sampled_from("ab"), st.integers(0, 200), st.sampled_from([0, 0, 1, 40, 120])),
            *(st.integers(1, 5), st.integers(0, 50), st.integers(0, 1)),
        ),
        min_size=1,
        max_size=15,
    )
)
@settings(max_examples=50)
def test_at_any_time_the_figures_equal_those_counted_by_hand_from_what_was_known(
    rows: list[tuple[str, int, int, int, int, int]],
) -> None:
    bought = [(c, day, lines, amount, returned, returned * 2) for c, day, _, lines, amount, returned in rows]
    found = customer_features(known_after(events(bought), *(late for _, _, late, *_ in rows)))
    assert found.height == len({(c, day + late) for c, day, late, *_ in rows})
    for customer, then in {(c, day + late + more) for c, day, late, *_ in rows for more in (0, 15)}:
        known = [r for r in rows if r[0] == customer and r[1] + r[2] <= then]
        end = max(r[1] for r in known)
        window = [r for r in known if r[1] > end - 90]
        orders = sum(lines > returned for *_, lines, _, returned in window)
        spend = sum(amount + 2 * returned for *_, amount, returned in window)
        share = sum(r[5] for r in window) / sum(r[3] for r in window)
        by_hand = (orders, spend, share, spend / orders if orders else 0, end - min(r[1] for r in known))
        assert joined(found, customer, then).select(FEATURES).row(0) == pytest.approx(by_hand)


def joined(found: pl.DataFrame, customer: str, day: int) -> pl.DataFrame:
    """The row that a point-in-time join takes: of those known by then the latest event, as it was known last."""
    then = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
    known = found.filter(
        pl.col("customer_id") == customer, pl.max_horizontal("event_timestamp", "created_timestamp") <= then
    )
    return known.sort("event_timestamp", "created_timestamp").tail(1)


def test_the_real_events_keep_the_contract_and_the_figures_their_ranges() -> None:
    validated = validate_events(to_events(read_table(real("customer_events.parquet"))))
    assert validated.bad.is_empty()
    found = customer_features(validated.good)
    assert found.select(pl.col(FEATURES).is_finite().all()).row(0) == (True,) * 5
    assert found.select(pl.col(FEATURES).min() >= 0).row(0) == (True,) * 5
    assert found["return_share_90d"].max() <= 1
    assert not found.select("customer_id", "event_timestamp").is_duplicated().any()
