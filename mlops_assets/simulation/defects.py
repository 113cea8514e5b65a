"""Deliberately bad rows, one kind per rule of the data contract, so that the quarantine has something to do.

Each is a damaged copy of a good row under an id of its own (`b000000` ...), except the duplicates, which repeat
the id of a good row. The good rows stay as they are.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from mlops_assets.simulation.scenario import Noise

LONG_TEXT = 10_000
UNKNOWN_LABEL = "billing"
DEFECTS = ("null_text", "empty_text", "long_text", "unknown_label", "duplicate_id", "label_before_event")


def spoil(messages: pl.DataFrame, noise: Noise, rng: np.random.Generator) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Add bad rows to good ones.

    Returns
    -------
    tuple of polars.DataFrame
        The messages with the bad rows among them, by event time; and the list of the bad ones
        (message_id, defect). At least one of each kind.
    """
    count = max(round(noise.defective * messages.height), len(DEFECTS))
    rows = rng.choice(messages.height, count, replace=messages.height < count)
    kinds = [DEFECTS[number % len(DEFECTS)] for number in range(count)]
    bad = messages[rows.tolist()].with_columns(
        defect=pl.Series(kinds), fresh_id=pl.Series([f"b{number:06d}" for number in range(count)])
    )
    is_ = {kind: pl.col("defect") == kind for kind in DEFECTS}
    bad = bad.with_columns(
        message_id=pl.when(is_["duplicate_id"]).then("message_id").otherwise("fresh_id"),
        text=pl.when(is_["null_text"])
        .then(None)
        .when(is_["empty_text"])
        .then(pl.lit(""))
        .when(is_["long_text"])
        .then(pl.concat_str(pl.col("text"), pl.lit(" ")).repeat_by(LONG_TEXT).list.join("").str.slice(0, LONG_TEXT))
        .otherwise("text"),
        label=pl.when(is_["unknown_label"]).then(pl.lit(UNKNOWN_LABEL)).otherwise("label"),
        label_timestamp=pl.when(is_["label_before_event"])
        .then(pl.col("event_timestamp") - pl.duration(hours=6))
        .otherwise("label_timestamp"),
    )
    together = pl.concat([messages, bad.drop("defect", "fresh_id")]).sort("event_timestamp", maintain_order=True)
    return together, bad.select("message_id", "defect")
