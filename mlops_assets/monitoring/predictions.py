"""Reads back what the endpoint logged: predictions and labels, joined as they were known at a given time.

The logs are append-only and written by several replicas, so a line that a killed process left half
written is counted and passed over, as is one that was blanked for a customer, uncounted, and a label
may stand there long before its prediction is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

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


@dataclass(frozen=True)
class Logged:
    """One log folder as a table; `torn` counts the lines that no process finished."""

    rows: pl.DataFrame
    torn: int


def read_predictions(folder: Path) -> Logged:
    """Every prediction of `read_requests`; see `answers`."""
    requests = read_requests(folder)
    return Logged(answers(requests.rows), requests.torn)


def answers(requests: pl.DataFrame) -> pl.DataFrame:
    """The predictions among requests: answered, not sent again as load, and not by a tester who named the arm."""
    return requests.filter((pl.col("status") == "ok") & is_traffic()).drop(_ASIDE)


def read_requests(folder: Path) -> Logged:
    """Every request that was logged, those that failed and repeats among them, each as it counted for a rollout.

    Columns as the endpoint wrote them, times in UTC, `features` as a struct's JSON; `predicted` is the
    endpoint's label, so that `label` stays free for the true one.
    """
    records, torn = _read(folder, _REQUEST)
    rows = records.rename({"label": "predicted"}).with_columns(_utc("event_timestamp"), _utc("received_at"))
    return Logged(rows.unique("prediction_id", keep="first", maintain_order=True), torn)


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


def read_feedback(folder: Path) -> Logged:
    """Every label that came back, in the order in which they became known."""
    records, torn = _read(folder, _FEEDBACK)
    rows = records.with_columns(_utc("label_timestamp"), _utc("received_at"))
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
    """Labels whose prediction is not in the log (yet); they are kept and joined when it comes."""
    return feedback.join(predictions, on="prediction_id", how="anti")["prediction_id"].n_unique()


def _read(folder: Path, schema: dict[str, Any]) -> tuple[pl.DataFrame, int]:
    rows: list[dict[str, Any]] = []
    torn = 0
    for line in _lines(folder):
        record = read_record(line)
        if record is None:
            torn += 1
            continue
        record["features"] = json.dumps(record.get("features"))
        rows.append({name: record.get(name) for name in schema})
    return pl.DataFrame(rows, schema=schema), torn


def read_record(line: bytes) -> dict[str, Any] | None:
    """A line's record; None for a line that no process finished."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _lines(folder: Path) -> Iterator[bytes]:
    for segment in sorted(folder.glob("*.ndjson")):
        yield from (line for line in segment.read_bytes().split(b"\n") if line.strip())


def _utc(column: str) -> pl.Expr:
    return pl.col(column).str.to_datetime("%+", time_zone="UTC", time_unit="us", strict=True)
