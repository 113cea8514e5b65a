"""Which labelled rows a model may learn from now, split for ever into train, validation and test.

Joins history with what the endpoint answered and people labelled since; honours known times, keeps the
first split rule, and takes out test rows that repeat what was learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from mlops_assets.data.ingest import read_days
from mlops_assets.data.leakage import LeakageReport, find_leakage, remove_leaking
from mlops_assets.data.snapshots import Snapshot, latest_snapshot, write_snapshot
from mlops_assets.data.split import TEST, SplitRule, TooFewRows, first_rule, labelled_by, split
from mlops_assets.data.tables import MESSAGE_SCHEMA
from mlops_assets.settings import ModelHome
from mlops_assets.spec import DataSpec


@dataclass(frozen=True)
class Assembled:
    """A snapshot and what the leakage search found: before the removal, and in what remains."""

    snapshot: Snapshot
    counts: dict[str, int]
    removed: LeakageReport
    remaining: LeakageReport
    until: datetime


def assemble(home: ModelHome, spec: DataSpec, as_of: datetime) -> Assembled:
    """Write the snapshot of everything labelled by `as_of`; the same data give the same snapshot.

    Raises:
        TooFewRows: there is nothing to split.
    """
    parts = [part for part in (read_days(home.validated), read_days(home.labelled)) if part is not None]
    if not parts:
        raise TooFewRows("there are neither validated messages nor labelled predictions yet: ingest history first")
    rows = pl.concat([part.select(list(MESSAGE_SCHEMA)) for part in parts]).filter(pl.col("event_timestamp") <= as_of)
    known = labelled_by(rows, as_of).unique("message_id", keep="first", maintain_order=True)
    if known.is_empty():
        raise TooFewRows(f"no label was known by {as_of.isoformat()}")
    earlier = latest_snapshot(home.snapshots)
    rule = SplitRule.from_dict(earlier.manifest["split"]) if earlier else first_rule(known, spec)
    kept, removed = remove_leaking(split(known, rule), spec.near_duplicate_similarity)
    until = kept["event_timestamp"].max()
    assert isinstance(until, datetime)
    snapshot = write_snapshot(home.snapshots, kept, {"as_of": as_of, "until": until, "split": rule.to_dict()})
    counts = dict(kept["part"].value_counts().iter_rows())
    return Assembled(snapshot, counts, removed, leakage_of(kept, spec.near_duplicate_similarity), until)


def leakage_of(frame: pl.DataFrame, similarity: float) -> LeakageReport:
    """What of the test rows in `frame` repeats its other rows."""
    is_test = pl.col("part") == TEST
    learned, held_out = frame.filter(~is_test)["text"], frame.filter(is_test)["text"]
    return find_leakage(learned.to_list(), held_out.to_list(), similarity)
