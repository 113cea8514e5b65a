"""Traffic by the hour, from the prediction log: how many messages came, and how many were not answered in time.

The log grows for ever, so only what is new is read: what was read so far and the counts are kept in one small
file. Messages sent again as load and those of testers are left out; one that was never answered counts as slow.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from mlops_assets.monitoring.predictions import is_traffic, of_traffic, read_record
from mlops_assets.storage import read_json, write_atomic

KEPT = timedelta(weeks=10)
HOUR = timedelta(hours=1)
LEAST_ALIKE = 3  # earlier hours, to speak of the usual


@dataclass(frozen=True)
class Hour:
    """One hour of event time, UTC."""

    start: datetime
    requests: int
    slow: int


class Traffic:
    """The counted hours of one model; `now` (exclusive) ends what may be looked at.

    Hours without a request are there too, from the first hour with one on.
    """

    def __init__(self, counted: dict[datetime, tuple[int, int]], now: datetime) -> None:
        self._counted = counted
        self._first = min(counted, default=now)
        self.end = start_of_hour(now)

    def at(self, start: datetime) -> Hour | None:
        """The hour that begins at `start`; None before the first request and once it is not over yet."""
        if start < self._first or start >= self.end:
            return None
        return Hour(start, *self._counted.get(start, (0, 0)))

    def last(self, hours: int) -> list[Hour]:
        """The last `hours` that are over, newest first."""
        starts = (self.end - (back + 1) * HOUR for back in range(hours))
        return [hour for hour in map(self.at, starts) if hour is not None]

    def usual(self, start: datetime) -> list[Hour]:
        """Earlier hours like this one: the same of the week, else of the day; none with fewer than three of them."""
        for step, back in ((timedelta(weeks=1), 8), (timedelta(days=1), 14)):
            alike = [hour for n in range(1, back + 1) if (hour := self.at(start - n * step)) is not None]
            if len(alike) >= LEAST_ALIKE:
                return alike
        return []


def read_traffic(log: Path, state: Path, slow_ms: float, now: datetime) -> Traffic:
    """Count what came into the log since the last look, and keep it.

    Args:
        log: folder of the prediction log.
        state: file of the counts; another `slow_ms` than last time begins anew.
        slow_ms: an answer that took longer is slow.
        now: end of what may be looked at.
    """
    document = read_json(state) if state.exists() else {}
    if document.get("slow_ms") != slow_ms:
        document = {"slow_ms": slow_ms, "read": {}, "hours": {}}
    requests, slow = (Counter({hour: n[i] for hour, n in document["hours"].items()}) for i in (0, 1))
    read = {path.name: _count(path, document["read"].get(path.name, 0), slow_ms, requests, slow) for path in _logs(log)}
    oldest = (now - KEPT).isoformat()
    hours = {hour: (requests[hour], slow[hour]) for hour in sorted(requests) if hour >= oldest}
    # Two files would not do: after a crash between them messages were counted twice or never.
    write_atomic(state, json.dumps({"slow_ms": slow_ms, "read": read, "hours": hours}).encode())
    return Traffic({datetime.fromisoformat(hour): counts for hour, counts in hours.items()}, now)


def count_hours(requests: pl.DataFrame, slow_ms: float) -> dict[datetime, tuple[int, int]]:
    """The same counts from the log as a table (`predictions.read_requests`): hour -> requests, slow ones."""
    slow = (pl.col("status") != "ok") | (pl.col("latency_ms") > slow_ms)
    first = requests.filter(is_traffic())
    hours = first.group_by(pl.col("event_timestamp").dt.truncate("1h")).agg(pl.len(), slow.sum()).iter_rows()
    return {hour: (int(number), int(late)) for hour, number, late in hours}


def start_of_hour(moment: datetime) -> datetime:
    """The beginning of the hour, UTC."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _logs(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.ndjson"))


def _count(path: Path, offset: int, slow_ms: float, requests: Counter[str], slow: Counter[str]) -> int:
    """Count the whole lines from `offset` on; returns where the next look begins."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                break  # still being written
            offset += len(line)
            record = read_record(line)
            if record is not None and of_traffic(record):
                hour = start_of_hour(datetime.fromisoformat(record["event_timestamp"])).isoformat()
                requests[hour] += 1
                slow[hour] += _is_slow(record, slow_ms)
    return offset


def _is_slow(record: dict[str, Any], slow_ms: float) -> bool:
    return record["status"] != "ok" or record["latency_ms"] > slow_ms
