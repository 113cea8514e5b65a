"""The contract of messages: which rows may go on, and why the others may not.

Reads its limits from the model's `DataSpec`. How faults are collected is `contract`'s business; what happens to
quarantined rows is the caller's.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, time, timedelta

import polars as pl

from mlops_assets.data.contract import (
    ColumnContract,
    Rule,
    TooManyBadRows,
    Validated,
    apply_contract,
    enforce_share,
    present,
    readable,
    required,
)
from mlops_assets.data.tables import CONFIDENCE_SCHEMA, MESSAGE_SCHEMA
from mlops_assets.spec import DataSpec

__all__ = ["TooManyBadRows", "Validated", "enforce_share", "required_of_messages", "validate"]

NO_TIME_ZONE = "is not a time with a time zone; write it in UTC, e.g. 2026-03-01T12:00:00Z"


def validate(
    frame: pl.DataFrame, spec: DataSpec, *, known_ids: Collection[str] = (), now: datetime | None = None
) -> Validated:
    """Check messages as they arrive: a label may still be unknown, and then has no time either.

    Parameters:
        frame: Messages with canonical column names (`tables.to_messages`), any types.
        spec: Labels, text length, first day.
        known_ids: Ids already taken by other batches; of an id repeated in `frame` the first row stands.
        now: A message of more than a day later is a fault; None takes any.

    Raises:
        MissingColumn: a canonical column is absent.

    >>> frame = pl.DataFrame({"message_id": ["a", "a"], "customer_id": [None, None], "text": ["hello", ""],
    ...                       "label": ["greeting", None], "event_timestamp": ["2026-03-01T12:00:00Z"] * 2,
    ...                       "label_timestamp": ["2026-03-02T12:00:00Z", None]})
    >>> validated = validate(frame, DataSpec())
    >>> validated.good.height, validated.bad.select("row", "column", "check").rows()
    (1, [(1, 'message_id', 'unique'), (1, 'text', 'length')])
    """
    return apply_contract(frame, _contract(frame, spec, known_ids, now))


def required_of_messages(frame: pl.DataFrame, spec: DataSpec) -> list[str]:
    """The columns of `frame` in which the contract allows no value to be missing.

    >>> required_of_messages(pl.DataFrame(), DataSpec())
    ['message_id', 'text', 'event_timestamp']
    """
    return required(_contract(frame, spec, (), None))


def _contract(
    frame: pl.DataFrame, spec: DataSpec, known_ids: Collection[str], now: datetime | None
) -> dict[str, ColumnContract]:
    contract = {
        "message_id": ColumnContract(MESSAGE_SCHEMA["message_id"], "is not an id", _id_rules(known_ids)),
        "customer_id": ColumnContract(MESSAGE_SCHEMA["customer_id"], "is not an id"),
        "text": ColumnContract(MESSAGE_SCHEMA["text"], "is not text", _text_rules(spec)),
        "label": ColumnContract(MESSAGE_SCHEMA["label"], "is not a label", _label_rules(spec)),
        "event_timestamp": ColumnContract(
            MESSAGE_SCHEMA["event_timestamp"], NO_TIME_ZONE, _event_time_rules(spec, now)
        ),
        "label_timestamp": ColumnContract(MESSAGE_SCHEMA["label_timestamp"], NO_TIME_ZONE, _label_time_rules()),
    }
    if "confidence" in frame.columns:
        contract["confidence"] = ColumnContract(
            CONFIDENCE_SCHEMA["confidence"], "is not a number", (_confidence_rule(),)
        )
    return contract


def _id_rules(known_ids: Collection[str]) -> tuple[Rule, ...]:
    column = pl.col("message_id")
    known = pl.Series(list(known_ids), dtype=pl.String)
    return (
        present("message_id"),
        Rule("not_empty", "is empty", column.str.len_chars() > 0),
        Rule("unique", "repeats the id of an earlier row", column.is_first_distinct() | column.is_null()),
        Rule("new", "was taken by an earlier batch", ~column.is_in(known.implode())),
    )


def _text_rules(spec: DataSpec) -> tuple[Rule, ...]:
    text, longest = pl.col("text"), spec.max_text_length
    within = (text.str.len_chars() <= longest) & text.str.contains(r"\S")
    return present("text"), Rule("length", f"must have 1 to {longest} characters, not all of them blank", within)


def _label_rules(spec: DataSpec) -> tuple[Rule, ...]:
    allowed = f"is not one of {', '.join(spec.labels)}"
    return (Rule("known_label", allowed, pl.col("label").is_in(spec.labels)),)


def _event_time_rules(spec: DataSpec, now: datetime | None) -> tuple[Rule, ...]:
    start = datetime.combine(spec.start, time(), UTC)
    # One row of a mistyped year would stretch the days of a model by as much. A day is left to clocks.
    latest = datetime.max.replace(tzinfo=UTC) if now is None else now + timedelta(days=1)
    return (
        present("event_timestamp"),
        Rule(
            "within_range",
            f"lies before the first day of the data, {spec.start} (`data.start`)",
            pl.col("event_timestamp") >= start,
        ),
        Rule("not_in_the_future", f"lies in the future, after {latest:%Y-%m-%d}", pl.col("event_timestamp") <= latest),
    )


def _label_time_rules() -> tuple[Rule, ...]:
    label, known = pl.col("label"), pl.col("label_timestamp")
    return (
        Rule("after_event", "lies before the event_timestamp of its message", known >= pl.col("event_timestamp")),
        Rule(
            "with_label",
            "a label and the time when it became known go together; one of the two is missing",
            (label.is_null() == known.is_null()) | ~readable("label_timestamp"),
        ),
    )


def _confidence_rule() -> Rule:
    # NaN sorts above every number in polars, so it is outside the range as infinity is
    return Rule("within_range", "must lie in 0..1 and be finite", pl.col("confidence").is_between(0, 1))
