"""What could not be known yet is counted: labels, features, and training rows that the split holds out."""

from datetime import timedelta

import polars as pl
import pytest

from mlops_assets.data.split import first_rule, split
from mlops_assets.data.time_leak import KNOWN_AT, early_features, early_labels, out_of_split, with_known_at
from mlops_assets.spec import DataSpec
from tests.data.factories import START, messages

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def test_a_label_or_an_event_after_the_snapshots_moment_is_found() -> None:
    frame = messages(10)
    assert early_labels(frame, START + 10 * HOUR + DAY) == 0
    assert early_labels(frame, START + 7 * HOUR + DAY) == 2
    assert early_labels(frame.with_columns(label_timestamp=START), START + 5 * HOUR) == 4


def test_a_row_without_the_time_its_label_became_known_is_found() -> None:
    frame = messages(3).with_columns(label_timestamp=pl.lit(None, pl.Datetime("us", "UTC")))
    assert early_labels(frame, START + 9 * DAY) == 3


def test_a_training_row_from_the_held_out_time_is_found_and_so_is_the_reverse() -> None:
    frame = messages(50)
    rule = first_rule(frame, DataSpec())
    parted = split(frame, rule)
    assert out_of_split(parted, rule) == 0
    last, first = pl.col("message_id") == "m49", pl.col("message_id") == "m0"
    moved = pl.when(last).then(pl.lit("train")).when(first).then(pl.lit("test")).otherwise("part").alias("part")
    assert out_of_split(parted.with_columns(moved), rule) == 2


def test_a_later_day_is_held_to_its_hashed_share() -> None:
    rule = first_rule(messages(50), DataSpec())
    late = split(messages(300), rule).filter(pl.col("event_timestamp") > rule.first_cut)
    assert out_of_split(late, rule) == 0
    held_out = late.filter(pl.col("part") == "test").height
    assert out_of_split(late.with_columns(part=pl.lit("train")), rule) >= held_out > 0


# Features

OFFLINE = pl.DataFrame(
    {
        "customer_id": ["c", "c", "c", "d"],
        "event_timestamp": [START, START + DAY, START + 2 * DAY, START],
        "created_timestamp": [START, START + DAY, START + 5 * DAY, START],  # the third was late
        "orders": [1.0, 2.0, 3.0, 1.0],
        "spend": [10.0, 20.0, 30.0, 10.0],
    }
)


@pytest.mark.parametrize(
    ("orders", "spend", "at", "leaks"),
    [
        (1.0, 10.0, START + HOUR, 0),
        (2.0, 20.0, START + DAY, 0),
        (2.0, 20.0, START + DAY - HOUR, 1),  # before it happened
        (3.0, 30.0, START + 3 * DAY, 1),  # it had happened, and was not known
        (3.0, 30.0, START + 5 * DAY, 0),
        (1.0, 30.0, START + 9 * DAY, 1),  # of no row at all
        (None, None, START, 0),  # the default stands in
    ],
)
def test_a_feature_value_counts_from_when_it_was_known(
    orders: float | None, spend: float | None, at: object, leaks: int
) -> None:
    row = {"message_id": ["m"], "customer_id": ["c"], "event_timestamp": [at], "orders": [orders], "spend": [spend]}
    frame = pl.DataFrame(row, schema_overrides={"orders": pl.Float64, "spend": pl.Float64})
    joined = with_known_at(frame, OFFLINE, ["orders", "spend"])
    assert joined.height == 1
    assert early_features(joined, ["orders", "spend"]) == leaks


def test_where_it_was_not_recorded_when_features_were_known_nothing_is_claimed() -> None:
    frame = messages(3).with_columns(orders=pl.lit(1.0))
    assert early_features(frame, ["orders"]) is None
    assert early_features(frame, []) == 0
    assert KNOWN_AT not in frame.columns
