"""Which columns two tables share, and as what each of them can be compared.

The reference decides by its types, as everywhere in the drift engine; a CSV file has none, so its text is
read for what all of a column's values are. What cannot be compared is named with the reason, never dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import polars as pl

from mlops_assets.data.tables import UTC_TIME, cast_values
from mlops_assets.drift.columns import is_numeric

_NOT_THERE = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None")
_ENOUGH_TO_TELL = 30  # values; in fewer, that all differ says nothing
_MOSTLY = 0.5
_UNLIKELY_UNREPEATED = 1000  # whole numbers, none twice: amounts and counts repeat long before
_LOCAL_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")


class Kind(StrEnum):
    """What a column is compared as."""

    NUMBER = "number"
    CATEGORY = "category"
    TEXT = "text"
    TIME = "time"
    LEFT_OUT = "left out"


@dataclass(frozen=True)
class Role:
    """One column that both tables have; `reason` says why it is not compared as it is."""

    column: str
    kind: Kind
    reason: str = ""


def infer_types(frame: pl.DataFrame) -> pl.DataFrame:
    """Give the text columns of a CSV file the type that fits all their values: numbers, booleans, or UTC times.

    A value such as NA counts as missing where every other value is a number or a boolean. A column in which one
    value does not fit stays text.

    >>> infer_types(pl.DataFrame({"n": ["1", "NA"], "day": ["2026-03-01", None], "who": ["NA", "b"]})).dtypes
    [Int64, Datetime(time_unit='us', time_zone='UTC'), String]
    """
    return frame.with_columns(_infer(column) for column in frame.get_columns() if column.dtype == pl.String)


def infer_times(frame: pl.DataFrame) -> pl.DataFrame:
    """The same for times alone: for formats whose numbers have a type, and whose times may not."""
    text = [column for column in frame.get_columns() if column.dtype == pl.String]
    return frame.with_columns(time for column in text if (time := _as_times(column)) is not None)


def find_roles(reference: pl.DataFrame, current: pl.DataFrame) -> tuple[Role, ...]:
    """The role of each column that both tables have, in the order of the reference."""
    shared = [name for name in reference.columns if name in current.columns]
    return tuple(_role(reference[name], current[name]) for name in shared)


def is_text(dtype: pl.DataType) -> bool:
    """Whether a type holds text; a column of nothing at all may."""
    return isinstance(dtype, pl.String | pl.Categorical | pl.Enum | pl.Null)


def is_time(dtype: pl.DataType) -> bool:
    """Whether a type says when something happened."""
    return isinstance(dtype, pl.Datetime | pl.Date)


def _role(before: pl.Series, now: pl.Series) -> Role:
    name, dtype = before.name, before.dtype
    if before.count() == 0 and now.count() == 0:
        return Role(name, Kind.LEFT_OUT, "has no value in either file")
    if is_time(dtype):
        return Role(name, Kind.TIME, "a time; it always moves on, so it is drawn over and not compared")
    if is_numeric(before):
        counter = dtype.is_integer() and now.dtype.is_integer() and _identifies(before, now)
        reason = "an identifier: a whole number of which none occurs twice"
        return Role(name, Kind.LEFT_OUT, reason) if counter else Role(name, Kind.NUMBER)
    if not is_text(dtype):
        return Role(name, Kind.LEFT_OUT, f"holds {dtype}, which has no distribution to compare")
    return _text_role(before.cast(pl.String))


def _text_role(text: pl.Series) -> Role:
    there, distinct = text.count(), text.drop_nulls().n_unique()
    if there < _ENOUGH_TO_TELL or distinct <= _MOSTLY * there:
        return Role(text.name, Kind.CATEGORY)
    spoken = text.str.strip_chars().str.contains(r"\s").mean()
    if isinstance(spoken, float) and spoken > _MOSTLY:
        return Role(text.name, Kind.TEXT, "free text: its length in characters is compared, not its words")
    reason = f"an identifier: {distinct:,} of {there:,} values are distinct, so there are no categories to compare"
    return Role(text.name, Kind.LEFT_OUT, reason)


def _identifies(before: pl.Series, now: pl.Series) -> bool:
    """Whether no value occurs twice in either table, where chance would have repeated one or broken the order."""
    if any(values.null_count() or values.n_unique() < len(values) for values in (before, now)):
        return False
    many = min(len(before), len(now)) >= _UNLIKELY_UNREPEATED
    return many or all(len(values) >= _ENOUGH_TO_TELL and values.is_sorted() for values in (before, now))


def _infer(values: pl.Series) -> pl.Series:
    text = values.str.strip_chars()
    text = text.set(text.is_in(_NOT_THERE), None)
    there = text.count()
    if not there:
        return values
    for number in (pl.Int64, pl.Float64):
        if (cast := text.cast(number, strict=False)).count() == there:
            return cast
    lower = text.str.to_lowercase()
    if lower.drop_nulls().is_in(["true", "false"]).all():
        return lower == "true"
    times = _as_times(values)
    return values if times is None else times


def _as_times(values: pl.Series) -> pl.Series | None:
    """ISO times as UTC, those without a zone taken as UTC; None where one value is no time."""
    if not values.count():
        return None
    iso = values.str.strip_chars().str.replace(" ", "T")
    parsed = [cast_values(values, UTC_TIME)]
    parsed += [
        iso.str.to_datetime(form, strict=False, time_unit="us").dt.replace_time_zone("UTC") for form in _LOCAL_FORMATS
    ]
    return next((times for times in parsed if times.count() == values.count()), None)
