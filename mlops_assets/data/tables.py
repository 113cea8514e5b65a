"""The one place where bytes become a table and a table becomes bytes.

Knows file formats, the user's column names and the canonical frames; a value that does not fit its canonical
type is kept as it came. Which values are acceptable is left to `validation` and `customer_features`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import polars as pl
from polars.exceptions import ComputeError, PanicException, PolarsError

from mlops_assets.spec import Columns
from mlops_assets.storage import write_atomic

UTC_TIME = pl.Datetime("us", "UTC")

MESSAGE_SCHEMA: dict[str, pl.DataType] = {
    "message_id": pl.String(),
    "customer_id": pl.String(),
    "text": pl.String(),
    "label": pl.String(),
    "event_timestamp": UTC_TIME,
    "label_timestamp": UTC_TIME,
}
CONFIDENCE_SCHEMA: dict[str, pl.DataType] = {"confidence": pl.Float64()}
EVENT_SCHEMA: dict[str, pl.DataType] = {
    "customer_id": pl.String(),
    "event_timestamp": UTC_TIME,
    "lines": pl.Int64(),
    "qty": pl.Int64(),
    "amount": pl.Float64(),
    "return_lines": pl.Int64(),
    "return_amount": pl.Float64(),
    "country": pl.String(),
}
KNOWN_TIME_SCHEMA: dict[str, pl.DataType] = {"known_timestamp": UTC_TIME}
_IDS = ("message_id", "customer_id")


class BadTable(ValueError):
    """A table cannot be used as a whole; its subclasses say why."""


class UnreadableFile(BadTable):
    """A file is not the table that its name promises."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read as a table: {reason}")
        self.path = path
        self.reason = reason


class MissingColumn(BadTable):
    """A declared column is not in the table."""

    def __init__(self, missing: list[str], present: list[str]) -> None:
        super().__init__(
            f"missing column {', '.join(missing)}; the table has: {', '.join(present) or 'no columns'}. "
            "Name your columns under `data.columns` of the model's defs.yaml."
        )
        self.missing = missing
        self.present = present


class EmptyTable(BadTable):
    """A table has its columns and no rows."""

    def __init__(self) -> None:
        super().__init__("the table has no rows; leave the file out, or put at least one row into it")


def is_table(path: Path) -> bool:
    """Whether a file's name is that of a table: its suffix is one of `SUFFIXES`, in upper or lower case.

    >>> is_table(Path("march.CSV")), is_table(Path("march.xlsx"))
    (True, False)
    """
    return path.suffix.lower() in SUFFIXES


def read_table(path: Path) -> pl.DataFrame:
    """Read one parquet, CSV or NDJSON file, by its suffix.

    CSV columns stay strings: their types are decided by the canonical schema, not guessed from the first rows.

    Raises:
        UnreadableFile: there is no such file, it is empty, cut short, of another format, or has an unknown suffix.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UnreadableFile(path, f"the suffix must be one of {', '.join(SUFFIXES)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableFile(path, error.strerror or str(error)) from error
    if not content.strip():
        raise UnreadableFile(path, "it is empty")
    try:
        return reader(content)
    except (PolarsError, PanicException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UnreadableFile(path, f"it is broken or cut short ({reason}, {len(content)} bytes)") from error


def write_table(path: Path, frame: pl.DataFrame) -> Path:
    """Write `frame` in the format of the suffix, in one step: readers see the old table or the new.

    Raises:
        UnreadableFile: the suffix is unknown.
    """
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise UnreadableFile(path, f"the suffix must be one of {', '.join(SUFFIXES)}")
    buffer = io.BytesIO()
    writer(frame, buffer)
    return write_atomic(path, buffer.getvalue())


def to_messages(frame: pl.DataFrame, columns: Columns) -> pl.DataFrame:
    """The canonical message frame: the user's columns renamed, in canonical order, other columns dropped.

    A column in which every value fits gets its canonical type. One with a value that does not fit (a local time,
    a word where a number belongs) stays as it came, so that validation can quarantine it with its original value.
    Ids are read as `plain_ids` says. A column `confidence` is kept where there is one.

    Raises:
        MissingColumn: a column named in the spec is absent; the error says what the table has.
        EmptyTable: there are no rows.

    >>> raw = pl.DataFrame({"id": [1], "body": ["hi"], "message_time": ["2026-03-01T12:00:00+02:00"]})
    >>> columns = Columns(message_id="id", customer_id="id", text="body", label="body",
    ...                   event_timestamp="message_time", label_timestamp="message_time")
    >>> to_messages(raw, columns)["event_timestamp"].to_list()
    [datetime.datetime(2026, 3, 1, 10, 0, tzinfo=zoneinfo.ZoneInfo(key='UTC'))]
    """
    sources = columns.model_dump()
    if "confidence" in frame.columns:
        sources["confidence"] = "confidence"
    return _canonical(frame, sources, MESSAGE_SCHEMA | CONFIDENCE_SCHEMA)


def to_events(frame: pl.DataFrame) -> pl.DataFrame:
    """The canonical frame of customer events, by the same rules as `to_messages`; `known_timestamp` is optional.

    Raises:
        MissingColumn: a column is absent.
        EmptyTable: there are no rows.
    """
    schema = EVENT_SCHEMA | {k: v for k, v in KNOWN_TIME_SCHEMA.items() if k in frame.columns}
    return _canonical(frame, {name: name for name in schema}, schema)


def require_columns(frame: pl.DataFrame, names: list[str]) -> None:
    """Raise `MissingColumn` unless `frame` has all of `names`."""
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise MissingColumn(missing, frame.columns)


def cast_values(values: pl.Series, to: pl.DataType) -> pl.Series:
    """Cast what can be cast without guessing; everything else becomes null.

    Times need a zone (a local time is ambiguous), integers may not lose a fraction, and a whole-numbered float
    id loses its ``.0``, as pandas adds one to integer columns with gaps.
    """
    if values.dtype == to:
        return values
    if values.dtype.is_nested() or values.dtype == pl.Object:
        return pl.Series(values.name, [None] * len(values), dtype=to)
    if isinstance(to, pl.Datetime):
        return _to_utc(values)
    if values.dtype.is_float() and not to.is_float():
        whole = values.cast(pl.Int64, strict=False)
        lossless = bool((whole.cast(pl.Float64) == values).all()) and whole.null_count() == values.null_count()
        if lossless or to.is_integer():
            return whole.set(whole.cast(pl.Float64) != values, None).cast(to)
    return values.cast(to, strict=False)


def plain_ids(values: pl.Series) -> pl.Series:
    """Ids without what pandas makes of gaps among whole numbers: NaN, and in text ``1001.0``; a blank one is null.

    In text the ``.0`` goes only where every id has it: otherwise it may be part of one.

    >>> plain_ids(pl.Series(["1001.0", " ", "1002.0"])).to_list(), plain_ids(pl.Series(["1.0", "1.1"])).to_list()
    (['1001', None, '1002'], ['1.0', '1.1'])
    """
    if values.dtype.is_float():
        return values.fill_nan(None)
    if values.dtype != pl.String:
        return values
    given = values.set(~values.str.contains(r"\S"), None)
    return given.str.strip_suffix(".0") if given.str.contains(r"^\d+\.0$").all() else given


def _canonical(frame: pl.DataFrame, sources: Mapping[str, str], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    require_columns(frame, list(sources.values()))
    if frame.is_empty():
        raise EmptyTable
    columns = {name: plain_ids(frame[source]) if name in _IDS else frame[source] for name, source in sources.items()}
    return pl.DataFrame([_cast_or_keep(values.alias(name), schema[name]) for name, values in columns.items()])


def _cast_or_keep(values: pl.Series, to: pl.DataType) -> pl.Series:
    cast = cast_values(values, to)
    return cast if cast.null_count() == values.null_count() else values


def _to_utc(values: pl.Series) -> pl.Series:
    if isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone is not None:
        return values.dt.convert_time_zone("UTC").cast(UTC_TIME)
    if values.dtype == pl.String:
        iso = values.str.strip_chars().str.replace(" ", "T").str.replace(r"[Zz]$", "+00:00")
        return iso.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", strict=False, time_unit="us")
    return pl.Series(values.name, [None] * len(values), dtype=UTC_TIME)


def _read_csv(content: bytes) -> pl.DataFrame:
    try:
        return pl.read_csv(content, infer_schema=False)
    except PolarsError as error:
        raise ComputeError(_longer_line(content) or str(error)) from error


def _longer_line(content: bytes) -> str:
    """Where a CSV file has a line with more fields than its header, as polars does not say; empty if nowhere."""
    lines = csv.reader(io.StringIO(content.decode(errors="replace"), newline=""))
    with suppress(csv.Error):  # a cell beyond the module's limit, say: then polars' reason stands alone
        header = next(lines)
        for fields in lines:
            if len(fields) > len(header):
                return f"line {lines.line_num} has {len(fields)} fields, the header has {len(header)}"
    return ""


def _read_ndjson(content: bytes) -> pl.DataFrame:
    return pl.read_ndjson(content, infer_schema_length=None)


_READERS: dict[str, Callable[[bytes], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".csv": _read_csv,
    ".ndjson": _read_ndjson,
    ".jsonl": _read_ndjson,
}
_WRITERS: dict[str, Callable[[pl.DataFrame, io.BytesIO], None]] = {
    ".parquet": pl.DataFrame.write_parquet,
    ".csv": pl.DataFrame.write_csv,
    ".ndjson": pl.DataFrame.write_ndjson,
    ".jsonl": pl.DataFrame.write_ndjson,
}
SUFFIXES = tuple(sorted(_READERS))
