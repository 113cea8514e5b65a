"""How long the endpoint's logs are kept: old segments go, once everything in them was read.

A segment holds the records of one day of the wall clock, which its name tells. An answered prediction was read when
it stands in a labelled day, a label when it or a later one stands there too, or can join nothing any more. What the
labelled days keep is not touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from mlops_assets.monitoring.predictions import of_traffic, read_record, segment_day
from mlops_assets.settings import ModelHome


@dataclass(frozen=True)
class Pruned:
    """Segments that went, and old ones that wait because something in them was not read yet."""

    removed: tuple[Path, ...]
    waiting: tuple[Path, ...]


def prune(home: ModelHome, keep: timedelta, today: date) -> Pruned:
    """Remove the segments of one model's logs whose day is more than `keep` before `today` and that were read."""
    predictions, feedback, shadow = (
        list(_older(folder, today - keep)) for folder in (home.predictions, home.feedback, home.shadow)
    )
    if not predictions and not feedback and not shadow:
        return Pruned((), ())
    labelled = _labelled(home.labelled)
    read = {segment for segment in predictions if labelled.keys() >= set(_answered(segment))}
    unread = {p for segment in predictions if segment not in read for p in _answered(segment)}
    read |= {s for s in feedback if all(_was_joined(label, labelled, unread) for label in _records(s))}
    read |= set(shadow)  # compared when it was written; nobody reads it again
    for segment in read:
        segment.unlink()
    old = (*predictions, *feedback, *shadow)
    return Pruned(tuple(s for s in old if s in read), tuple(s for s in old if s not in read))


def _older(folder: Path, limit: date) -> Iterator[Path]:
    for segment in sorted(folder.glob("*.ndjson")):
        day = segment_day(segment)
        if day is not None and day < limit:
            yield segment


def _labelled(folder: Path) -> dict[str, datetime | None]:
    """Predictions of the labelled days, and when the label that stands there became known."""
    files = sorted(folder.glob("????-??-??.parquet"))
    if not files:
        return {}
    return dict(pl.scan_parquet(files).select("message_id", "label_timestamp").collect().iter_rows())


def _was_joined(label: dict[str, Any], labelled: dict[str, datetime | None], unread: set[str]) -> bool:
    prediction = label["prediction_id"]
    if prediction not in labelled:
        return prediction not in unread
    known = labelled[prediction]
    return known is not None and known >= datetime.fromisoformat(label["label_timestamp"])


def _answered(segment: Path) -> Iterator[str]:
    customers = filter(of_traffic, _records(segment))
    return (record["prediction_id"] for record in customers if record["status"] == "ok")


def _records(segment: Path) -> Iterator[dict[str, Any]]:
    return filter(None, map(read_record, segment.read_bytes().splitlines()))
