"""Realised quality: what the labels that are known by a moment say about a set of predictions.

A label counts only from its known time on, so a backfill gives the same answer as the day itself. Whether
a figure is good enough is judged in `monitors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from mlops_assets.f1 import Answered, customer_numbers, f1_bounds

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Quality:
    """What is known of a set of predictions; figures are None while no label is known.

    `f1_low` and `f1_high` bound the weighted F1 from one side each, with 95 % confidence, over customers like these.
    """

    predictions: int
    labels: int
    accuracy: float | None = None
    f1_weighted: float | None = None
    f1_low: float | None = None
    f1_high: float | None = None


def realised(frame: pl.DataFrame, *, as_of: datetime, seed: int = 0) -> Quality:
    """Realised quality of one set of predictions.

    Args:
        frame: one row per prediction with `customer_id` (null where not known), `predicted`, `label` (null while
            unknown) and `label_timestamp`, in UTC.
        as_of: labels known later than this do not count.
        seed: of the resampling behind the bounds.

    >>> from datetime import UTC, timedelta
    >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> late = noon + timedelta(days=2)
    >>> frame = pl.DataFrame(
    ...     {
    ...         "customer_id": ["c1", None],
    ...         "predicted": ["refund", "query"],
    ...         "label": ["refund", "refund"],
    ...         "label_timestamp": [noon, late],
    ...     }
    ... )
    >>> realised(frame, as_of=noon).accuracy, realised(frame, as_of=late).accuracy
    (1.0, 0.5)
    """
    known = frame.filter(pl.col("label").is_not_null() & (pl.col("label_timestamp") <= as_of))
    if known.is_empty():
        return Quality(frame.height, 0)
    labels, numbers = np.unique([known["label"].to_list(), known["predicted"].to_list()], return_inverse=True)
    actual, predicted = numbers.reshape(2, -1)
    rows = Answered.of(actual, [predicted], len(labels), customer_numbers(known["customer_id"]))
    low, high = f1_bounds(rows, CONFIDENCE, seed)
    return Quality(
        predictions=frame.height,
        labels=known.height,
        accuracy=float((actual == predicted).mean()),
        f1_weighted=float(rows.f1().weighted[0]),
        f1_low=low,
        f1_high=high,
    )
