from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.data.tables import MESSAGE_SCHEMA, MissingColumn, read_table, to_messages
from mlops_assets.data.validation import TooManyBadRows, enforce_share, validate
from mlops_assets.spec import DataSpec
from tests.data.factories import START, faults, messages, real

SPEC = DataSpec()


def test_good_rows_pass_unchanged() -> None:
    validated = validate(messages(10), SPEC)
    assert validated.good.equals(messages(10))
    assert (validated.rows, validated.bad_rows, validated.bad_share) == (10, 0, 0.0)


def test_one_bad_row_leaves_and_the_others_keep_their_order() -> None:
    validated = validate(messages(4, label=["order_status", "nonsense", "refund", "other"]), SPEC)
    assert validated.good["message_id"].to_list() == ["m0", "m2", "m3"]
    assert faults(validated.bad) == [(1, "label", "known_label")]
    assert validated.bad["label"].to_list() == ["nonsense"]
    assert "greeting, farewell" in validated.bad["reason"][0]


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"text": [None]}, ("text", "present")),
        ({"text": [""]}, ("text", "length")),
        ({"text": [" \n "]}, ("text", "length")),
        ({"text": ["x" * 10_000]}, ("text", "length")),
        ({"text": [["a", "list"]]}, ("text", "readable")),
        ({"message_id": [None]}, ("message_id", "present")),
        ({"message_id": [""]}, ("message_id", "not_empty")),
        ({"label": ["spam"]}, ("label", "known_label")),
        ({"label": [None]}, ("label_timestamp", "with_label")),
        ({"label_timestamp": [None]}, ("label_timestamp", "with_label")),
        ({"label_timestamp": ["2026-02-28T00:00:00Z"]}, ("label_timestamp", "after_event")),
        ({"label_timestamp": ["soon"]}, ("label_timestamp", "readable")),
        ({"event_timestamp": [None]}, ("event_timestamp", "present")),
        ({"event_timestamp": ["2026-03-01 00:00:00"]}, ("event_timestamp", "readable")),
        ({"event_timestamp": [1772323200]}, ("event_timestamp", "readable")),
        ({"event_timestamp": [date(2026, 3, 1)]}, ("event_timestamp", "readable")),
        ({"event_timestamp": ["2025-12-31T23:59:59Z"]}, ("event_timestamp", "within_range")),
        ({"confidence": [float("nan")]}, ("confidence", "within_range")),
        ({"confidence": [float("inf")]}, ("confidence", "within_range")),
        ({"confidence": [-0.1]}, ("confidence", "within_range")),
        ({"confidence": ["high"]}, ("confidence", "readable")),
    ],
)
def test_each_fault_is_quarantined_once_with_its_check(columns: dict[str, list[Any]], fault: tuple[str, str]) -> None:
    validated = validate(messages(1, **columns), SPEC)
    assert validated.good.is_empty()
    assert faults(validated.bad) == [(0, *fault)]


def test_what_may_be_missing_or_lies_on_the_edge_passes() -> None:
    frame = messages(
        3,
        customer_id=[None, "c1", "c2"],
        text=["x", "x" * 512, "退" * 512],
        confidence=[None, 0.0, 1.0],
        label=[None, "refund", "other"],
    ).with_columns(pl.when(pl.col("label").is_not_null()).then("event_timestamp").alias("label_timestamp"))
    assert validate(frame, SPEC).good.height == 3


def test_a_label_may_still_be_unknown() -> None:
    assert validate(messages(2, label=[None, None], label_timestamp=[None, None]), SPEC).bad.is_empty()


def test_a_message_from_the_future_is_a_fault_and_a_clock_that_is_fast_by_hours_is_not() -> None:
    now = START + timedelta(hours=3)
    times = [START, now + timedelta(hours=23), START + timedelta(days=3650)]
    frame = messages(3, event_timestamp=times, label=[None] * 3, label_timestamp=[None] * 3)
    validated = validate(frame, SPEC, now=now)
    assert faults(validated.bad) == [(2, "event_timestamp", "not_in_the_future")]
    assert "after 2026-03-02" in validated.bad["reason"][0]


def test_of_a_repeated_id_the_first_row_stands() -> None:
    validated = validate(messages(3, message_id=["a", "b", "a"]), SPEC)
    assert validated.good["message_id"].to_list() == ["a", "b"]
    assert faults(validated.bad) == [(2, "message_id", "unique")]


def test_an_id_of_an_earlier_batch_is_refused() -> None:
    assert faults(validate(messages(2), SPEC, known_ids={"m1", "x"}).bad) == [(1, "message_id", "new")]


def test_local_times_are_quarantined_with_their_original_value() -> None:
    naive = messages(2)["event_timestamp"].dt.replace_time_zone(None)
    validated = validate(to_messages(messages(2).with_columns(naive), SPEC.columns), SPEC)
    assert faults(validated.bad) == [(0, "event_timestamp", "readable"), (1, "event_timestamp", "readable")]
    assert validated.bad["event_timestamp"][1].startswith("2026-03-01 01:00:00")
    assert "write it in UTC" in validated.bad["reason"][0]


def test_an_all_null_column_stops_the_line_and_is_named() -> None:
    validated = validate(messages(20, text=[None] * 20), SPEC)
    with pytest.raises(TooManyBadRows, match=r"20 of 20 rows \(100.0%\).*20 x text: is missing"):
        enforce_share(validated, SPEC.max_quarantined_share)


def test_the_share_counts_rows_not_faults_and_the_limit_itself_is_allowed() -> None:
    validated = validate(messages(20, text=[""] + ["fine"] * 19, label=["spam"] + ["other"] * 19), SPEC)
    assert validated.bad.height == 2
    assert validated.bad_share == 0.05
    assert enforce_share(validated, 0.05) is validated
    with pytest.raises(TooManyBadRows, match=r"more than the allowed 4\.9%"):
        enforce_share(validated, 0.049)


def test_a_bad_value_is_kept_whole_in_quarantine_and_not_told_in_the_error() -> None:
    validated = validate(messages(1, text=["my name is Ada " * 1_000]), SPEC)
    assert len(validated.bad["text"][0]) == 15_000
    with pytest.raises(TooManyBadRows, match="first at row 0") as error:
        enforce_share(validated, 0.05)
    assert "Ada" not in str(error.value)


def test_a_column_of_mixed_types_loses_only_its_bad_values() -> None:
    mixed = messages(3, confidence=["0.5", "n/a", "0.25"])
    validated = validate(to_messages(mixed, SPEC.columns), SPEC)
    assert validated.good["confidence"].to_list() == [0.5, 0.25]
    assert validated.bad["confidence"].to_list() == ["n/a"]


def test_a_missing_column_is_an_error_not_a_fault_of_every_row() -> None:
    with pytest.raises(MissingColumn, match="missing column label"):
        validate(messages(2).drop("label"), SPEC)


def test_no_rows_are_no_faults() -> None:
    validated = validate(messages(0), SPEC)
    assert (validated.rows, validated.bad_share) == (0, 0.0)
    assert validated.good.schema == MESSAGE_SCHEMA


@pytest.mark.slow
@given(
    ids=st.lists(st.one_of(st.none(), st.sampled_from("abc")), min_size=1, max_size=8),
    value=st.one_of(st.none(), st.text(max_size=4), st.floats(), st.integers(-(2**60), 2**60), st.booleans()),
    column=st.sampled_from(["customer_id", "text", "label", "event_timestamp", "label_timestamp", "confidence"]),
)
@settings(max_examples=60)
def test_every_row_ends_up_good_or_quarantined(ids: list[str | None], value: Any, column: str) -> None:
    columns = {"message_id": ids, column: [value] * len(ids)}
    validated = validate(messages(len(ids), **columns), SPEC)
    bad = set(validated.bad["row"])
    assert validated.good.height + len(bad) == len(ids)
    assert validated.good["message_id"].is_unique().all()
    assert validate(validated.good, SPEC).bad.is_empty()


@pytest.mark.parametrize("name", ["messages.parquet", "traffic_in_domain.parquet", "traffic_shifted.parquet"])
def test_the_real_messages_keep_the_contract(name: str) -> None:
    frame = to_messages(read_table(real(name)), SPEC.columns)
    validated = validate(frame, SPEC)
    assert validated.bad.is_empty()
    assert validated.good["label"].null_count() == 0
    assert (validated.good["label_timestamp"] - validated.good["event_timestamp"]).min() > timedelta(0)
