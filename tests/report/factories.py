"""Two months of a small shop, alike unless a test changes a column."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from mlops_assets.report.comparison import Table


def shop(name: str, seed: int, n: int = 400, **columns: Any) -> Table:
    """`n` orders over 20 days; `columns` replaces whole columns."""
    rng = np.random.default_rng(seed)
    first = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=30 * seed)
    frame = {
        "order_id": [f"order-{seed}-{i}" for i in range(n)],
        "spend": rng.gamma(2.0, 20.0, n),
        "lines": rng.poisson(3, n),
        "country": rng.choice(["NL", "BE", "DE"], n, p=[0.6, 0.3, 0.1]),
        "note": [f"leave it at door {rng.integers(1 << 30)} please" for _ in range(n)],
        "event_timestamp": [first + timedelta(hours=1.2 * i) for i in range(n)],
    }
    return Table(name, pl.DataFrame(frame | columns))
