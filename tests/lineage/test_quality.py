"""A day's quality, and what the monitors make of the days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from mlops_assets.data.ingest import write_days
from mlops_assets.lineage import monitors, quality
from mlops_assets.lineage.alarm_limits import known_limits
from mlops_assets.lineage.loop import Loop
from mlops_assets.verdict import Verdict
from tests.data.factories import messages

DAY = datetime(2026, 3, 1, tzinfo=UTC)
PROMISED = {"metrics": {"f1_weighted": 0.95, "accuracy": 0.95}}


def answered(loop: Loop, day: datetime, version: int, right: int, gate: dict[str, Any]) -> dict[str, Any]:
    """The quality document of a day of 100 labelled answers of a version, so many of them right."""
    rows = messages(100, event_timestamp=[day + timedelta(minutes=n) for n in range(100)]).with_columns(
        label_timestamp=pl.lit(day + timedelta(hours=3)),
        received_at=pl.col("event_timestamp"),
        version=pl.lit(version, pl.Int64),
        arm=pl.lit("stable"),
        predicted=pl.when(pl.int_range(100) < right).then("label").otherwise(pl.lit("refund")),
    )
    write_days(rows, [day], loop.home.labelled)
    return quality.judge_day(loop, day, lambda _: gate)


def test_a_version_that_no_gate_judged_is_not_taken_for_the_good_one_before_it(loop: Loop) -> None:
    assert answered(loop, DAY, version=1, right=97, gate=PROMISED)["verdict"] is Verdict.PASS
    waived = answered(loop, DAY + timedelta(days=1), version=2, right=30, gate={})
    assert (waived["verdict"], waived["reference_version"]) == (Verdict.INSUFFICIENT_DATA, 2)
    assert waived["accuracy"] == pytest.approx(0.3)
    said = monitors.watch(loop, known_limits(loop))
    why = "version 2 was not judged by the gate: there is no figure to hold it to"
    for name in ("f1", "correctness", "estimated_f1"):
        assert (said[name].verdict, said[name].message) == (Verdict.INSUFFICIENT_DATA, why)
