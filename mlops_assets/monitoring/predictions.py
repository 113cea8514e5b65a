"""Reads back what the endpoint logged: predictions and labels, joined as they were known at a given time.

The logs are append-only and written by several replicas, so a line that a killed process left half
written is counted and passed over, as is one that was blanked for a customer, uncounted, and a label
may stand there long before its prediction is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

_TIME = pl.Datetime("us", "UTC")
_PREDICTION: dict[str, Any] = {
    "prediction_id": pl.String,
    "version": pl.Int64,
    "arm": pl.String,
    "rollout_id": pl.String,
    "event_timestamp": pl.String,
    "received_at": pl.String,
    "customer_id": pl.String,
    "text": pl.String,
    "label": pl.String,
    "confidence": pl.Float64,
    "probabilities": pl.List(pl.Float64),
    "features": pl.String,
    "features_source": pl.String,
    "latency_ms": pl.Float64,
    "status": pl.String,
    "repeat": pl.Boolean,
}
# Of a request only, not of a prediction.
_ASIDE: dict[str, Any] = {"version_ms": pl.Float64, "counted": pl.String, "overridden": pl.Boolean}
_REQUEST: dict[str, Any] = {**_PREDICTION, **_ASIDE}
_NO_TRAFFIC = ("repeat", "overridden")
_FEEDBACK: dict[str, Any] = {
    "prediction_id": pl.String,
    "label": pl.String,
    "label_timestamp": pl.String,
    "received_at": pl.String,
}
_TIMES = ("event_timestamp", "label_timestamp", "received_at")
_STARTED = re.compile(r"-(\d{8})T\d+$")
_FEATURES = re.compile(rb'"features":\s*(\{(?:"[^"\\]*":[^"{}\[\],]+,?\s*)*\})')  # a flat object without strings
_BLOCK = 2 * 1024 * 1024  # bytes


@dataclass(frozen=True)
class Logged:
    """One log folder as a table; `torn` counts the lines that no process finished."""

    rows: pl.DataFrame
    torn: int


def segment_day(segment: Path) -> date | None:
    """The day (UTC, by the wall clock) of a segment's records; None for a file that no endpoint named.

    >>> segment_day(Path("ingress-5f0c-20260301T120000000000.ndjson"))
    datetime.date(2026, 3, 1)
    """
    started = _STARTED.search(segment.stem)
    return datetime.strptime(started[1], "%Y%m%d").date() if started else None


def read_predictions(folder: Path) -> Logged:
    """Every prediction of `read_requests`; see `answers`."""
    requests = read_requests(folder)
    return Logged(answers(requests.rows), requests.torn)


def answers(requests: pl.DataFrame) -> pl.DataFrame:
    """The predictions among requests: answered, not sent again as load, and not by a tester who named the arm."""
    return requests.filter((pl.col("status") == "ok") & is_traffic()).drop(_ASIDE)


def read_requests(folder: Path, since: date | None = None) -> Logged:
    """Every request that was logged, those that failed and repeats among them, each as it counted for a rollout.

    Segments of days before `since`, by the wall clock, are passed over; None reads all.

    Columns as the endpoint wrote them, times in UTC, `features` as a struct's JSON; `predicted` is the
    endpoint's label, so that `label` stays free for the true one.
    """
    records, torn = _read(folder, _REQUEST, since)
    return Logged(records.rename({"label": "predicted"}).filter(pl.col("prediction_id").is_first_distinct()), torn)


def is_traffic() -> pl.Expr:
    """Whether a request came from a customer: it was not sent again as load, and no tester named its arm."""
    return ~pl.any_horizontal(pl.col(_NO_TRAFFIC).fill_null(value=False))


def of_traffic(record: Mapping[str, Any]) -> bool:
    """`is_traffic` of a line's record."""
    return not any(map(record.get, _NO_TRAFFIC))


def served_features(rows: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """What each prediction was made with, one column a feature, from the struct's JSON."""
    return rows["features"].str.json_decode(pl.Struct(dict.fromkeys(names, pl.Float64))).struct.unnest()


def first_event(folder: Path) -> datetime | None:
    """The earliest event time at which a segment begins, which no prediction lies far before; None without any."""
    begins = []
    for segment in folder.glob("*.ndjson"):
        with segment.open("rb") as lines:
            record = next(filter(None, map(read_record, lines)), None)
        if record is not None:
            begins.append(datetime.fromisoformat(record["event_timestamp"]))
    return min(begins, default=None)


def requests_per_second(folder: Path, now: datetime, window: timedelta = timedelta(hours=1)) -> float:
    """How many requests the endpoint has logged per second of late; 0 without any.

    Over the `window` before `now` (the wall clock's time of arrival), or over the time since the first request where
    that is shorter. Failed requests and repeats count: they too are traffic.
    """
    since = now - window
    recent = [path for path in folder.glob("*.ndjson") if path.stat().st_mtime >= since.timestamp()]
    records = (read_record(line) for path in recent for line in path.read_bytes().split(b"\n") if line)
    arrivals = [datetime.fromisoformat(record["received_at"]) for record in records if record is not None]
    within = sum(since <= arrival <= now for arrival in arrivals)
    if not within:
        return 0.0
    return within / max((now - max(since, min(arrivals))).total_seconds(), 1.0)


def read_feedback(folder: Path, since: date | None = None) -> Logged:
    """Every label that came back, in the order in which they became known; `since` as in `read_requests`."""
    rows, torn = _read(folder, _FEEDBACK, since)
    return Logged(rows.sort("label_timestamp", maintain_order=True), torn)


def join_labels(predictions: pl.DataFrame, feedback: pl.DataFrame, as_of: datetime) -> pl.DataFrame:
    """Predictions with the labels known at `as_of`: `label` and `label_timestamp` are null where none was.

    Of several labels of one prediction the one known last by then counts.

    Canonical columns come first (`message_id` is the prediction's id), so that the rows can train a model.
    """
    known = feedback.filter(pl.col("label_timestamp") <= as_of).sort("label_timestamp", maintain_order=True)
    latest = known.unique("prediction_id", keep="last").select("prediction_id", "label", "label_timestamp")
    joined = predictions.join(latest, on="prediction_id", how="left", maintain_order="left")
    return joined.rename({"prediction_id": "message_id"}).select(
        "message_id", "customer_id", "text", "label", "event_timestamp", "label_timestamp", pl.exclude(_CANONICAL)
    )


_CANONICAL = ("message_id", "customer_id", "text", "label", "event_timestamp", "label_timestamp")


def relabel(labelled: pl.DataFrame, requests: pl.DataFrame, feedback: pl.DataFrame, as_of: datetime) -> pl.DataFrame:
    """Rows that `join_labels` gave and whose requests are gone from the log, with the labels known at `as_of`.

    Labels go from the log as well: the one that stands there stays until a later one takes its place.
    """
    gone = labelled.join(requests, left_on="message_id", right_on="prediction_id", how="anti")
    gone = gone.rename({"message_id": "prediction_id"})
    columns = ("prediction_id", "label", "label_timestamp")
    known = gone.filter(pl.col("label").is_not_null())
    labels = pl.concat([feedback.select(columns), known.select(columns)])
    return join_labels(gone.drop("label", "label_timestamp"), labels, as_of)


def unmatched(predictions: pl.DataFrame, feedback: pl.DataFrame) -> int:
    """Labels whose prediction is not in what was read of the log (yet); they are kept and joined when it comes."""
    return feedback.join(predictions, on="prediction_id", how="anti")["prediction_id"].n_unique()


def _read(folder: Path, schema: dict[str, Any], since: date | None) -> tuple[pl.DataFrame, int]:
    """The records of a log and how many of its lines are torn; a block at a time, so that few are held as text."""
    parts = [_parse(block, schema) for segment in _segments(folder, since) for block in _blocks(segment)]
    rows = pl.concat([_typed([], schema), *(rows for rows, _ in parts)], rechunk=False)
    return rows, sum(torn for _, torn in parts)


def _parse(block: bytes, schema: dict[str, Any]) -> tuple[pl.DataFrame, int]:
    """The records of some lines, and how many are torn; line by line where polars does not take one of them."""
    try:
        rows = pl.read_ndjson(block, schema=schema)
    except PolarsError:
        return _parse_lines(block, schema)
    if "features" in schema:  # as they were written: polars would write their numbers anew
        rows = rows.with_columns(pl.Series("features", [_features(line) for line in _lines(block)], pl.String))
    return _with_times(rows), 0


def _parse_lines(block: bytes, schema: dict[str, Any]) -> tuple[pl.DataFrame, int]:
    """The same as `_parse`, more slowly."""
    lines = list(_lines(block))
    found = [{**record, "features": _features(line)} for line in lines if (record := read_record(line)) is not None]
    records = [{name: record.get(name) for name in schema} for record in found]
    return _typed(records, schema), len(lines) - len(records)


def _typed(records: list[dict[str, Any]], schema: dict[str, Any]) -> pl.DataFrame:
    return _with_times(pl.DataFrame(records, schema=schema))


def _with_times(rows: pl.DataFrame) -> pl.DataFrame:
    times = pl.col(name for name in _TIMES if name in rows.columns)
    return rows.with_columns(times.str.to_datetime("%+", time_zone="UTC", time_unit="us", strict=True))


def _features(line: bytes) -> str:
    """A record's features as JSON, ``null`` without any."""
    found = _FEATURES.search(line)
    return found[1].decode() if found else json.dumps((read_record(line) or {}).get("features"))


def _segments(folder: Path, since: date | None) -> Iterator[Path]:
    """The segments that may have records of a day or later; one whose name tells no day may have any."""
    for segment in sorted(folder.glob("*.ndjson")):
        day = segment_day(segment)
        if since is None or day is None or day >= since:
            yield segment


def _blocks(segment: Path) -> Iterator[bytes]:
    """A segment's bytes in blocks of whole lines; its last line may be torn."""
    with segment.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block + file.readline()


def _lines(block: bytes) -> Iterator[bytes]:
    return (line for line in block.split(b"\n") if line.strip())


def read_record(line: bytes) -> dict[str, Any] | None:
    """A line's record; None for a line that no process finished."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
