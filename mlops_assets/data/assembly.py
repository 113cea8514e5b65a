"""Which rows a model may learn from now, split for ever into train, validation and test.

Joins history with what the endpoint answered and people labelled since; honours known times, keeps the
first split rule, and puts aside test rows that repeat what was learned, and held-out rows without a label.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from mlops_assets.data.ingest import known_rows
from mlops_assets.data.leakage import LeakageReport, find_leakage, remove_leaking
from mlops_assets.data.snapshots import Snapshot, latest_snapshot, write_snapshot
from mlops_assets.data.split import ASIDE, TEST, TRAIN, SplitRule, TooFewRows, first_rule, labelled_by, split
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
    """Write the snapshot of everything that was known by `as_of`; the same data give the same snapshot.

    Raises:
        TooFewRows: there is nothing to split.
    """
    parts = known_rows(home)
    if not parts:
        raise TooFewRows("there are neither validated messages nor labelled predictions yet: ingest history first")
    rows = pl.concat([part.select(list(MESSAGE_SCHEMA)) for part in parts]).filter(pl.col("event_timestamp") <= as_of)
    declared = pl.col("label").is_in(spec.labels)  # days are kept from before a label was taken out
    known = labelled_by(rows, as_of).filter(declared).unique("message_id", keep="first", maintain_order=True)
    if known.is_empty():
        raise TooFewRows(f"no label was known by {as_of.isoformat()}")
    earlier = latest_snapshot(home.snapshots)
    rule = SplitRule.from_dict(earlier.manifest["split"]) if earlier else first_rule(known, spec)
    placed = split(known, rule)
    kept, removed = remove_leaking(placed, spec.near_duplicate_similarity)
    until = kept["event_timestamp"].max()
    assert isinstance(until, datetime)
    whole = pl.concat([kept, _aside(rows, placed, kept, rule)])
    snapshot = write_snapshot(home.snapshots, whole, {"as_of": as_of, "until": until, "split": rule.to_dict()})
    counts = dict(kept["part"].value_counts().iter_rows())
    return Assembled(snapshot, counts, removed, leakage_of(kept, spec.near_duplicate_similarity), until)


def _aside(rows: pl.DataFrame, placed: pl.DataFrame, kept: pl.DataFrame, rule: SplitRule) -> pl.DataFrame:
    """The held-out rows that are no test: by the same rule, so that they are as many of their kind as of the others."""
    unknown = rows.join(placed, on="message_id", how="anti").unique("message_id", keep="first", maintain_order=True)
    repeated = placed.join(kept, on="message_id", how="anti")
    held_out = pl.concat([split(unknown, rule), repeated]).filter(pl.col("part") != TRAIN)
    return held_out.with_columns(
        part=pl.lit(ASIDE),
        label=pl.lit(None, placed.schema["label"]),
        label_timestamp=pl.lit(None, placed.schema["label_timestamp"]),
    )


def leakage_of(frame: pl.DataFrame, similarity: float) -> LeakageReport:
    """What of the test rows in `frame` repeats its other rows."""
    is_test = pl.col("part") == TEST
    learned, held_out = frame.filter(~is_test)["text"], frame.filter(is_test)["text"]
    return find_leakage(learned.to_list(), held_out.to_list(), similarity)
