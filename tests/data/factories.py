"""Small honest tables for the tests of this folder."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

REAL_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "support_desk"
START = datetime(2026, 3, 1, tzinfo=UTC)


def messages(n: int = 10, **columns: Any) -> pl.DataFrame:
    """`n` good messages, one an hour, each labelled a day later; `columns` replaces whole columns."""
    events = [START + timedelta(hours=i) for i in range(n)]
    good = {
        "message_id": [f"m{i}" for i in range(n)],
        "customer_id": [f"c{i % 7}" for i in range(n)],
        "text": [f"where is my order number {i}" for i in range(n)],
        "label": ["order_status"] * n,
        "event_timestamp": events,
        "label_timestamp": [event + timedelta(days=1) for event in events],
    }
    times = {"event_timestamp": pl.Datetime("us", "UTC"), "label_timestamp": pl.Datetime("us", "UTC")}
    return pl.DataFrame(good | columns, schema_overrides={k: v for k, v in times.items() if k not in columns})


def events(rows: list[tuple[str, float, int, float, int, float]]) -> pl.DataFrame:
    """Customer events from (customer, day after 2026-01-01, lines, net amount, return lines, return amount)."""
    first = datetime(2026, 1, 1, tzinfo=UTC)
    names = ["customer_id", "day", "lines", "amount", "return_lines", "return_amount"]
    return pl.DataFrame(rows, schema=names, orient="row").select(
        "customer_id",
        (pl.lit(first) + pl.duration(microseconds=(pl.col("day") * 86_400_000_000).cast(pl.Int64))).alias(
            "event_timestamp"
        ),
        "lines",
        pl.lit(1, dtype=pl.Int64).alias("qty"),
        pl.col("amount").cast(pl.Float64),
        "return_lines",
        pl.col("return_amount").cast(pl.Float64),
        pl.lit("Netherlands").alias("country"),
    )


def real(name: str) -> Path:
    """A file of the real support desk, or a skip that says why."""
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"the real data is not at {REAL_DATA}")
    return path


def faults(bad: pl.DataFrame) -> list[tuple[int, str, str]]:
    """(row, column, check) of each quarantined fault."""
    return bad.select("row", "column", "check").rows()
