"""Rows as the network takes them: texts, feature vectors, label numbers and loss weights, as arrays.

Knows the canonical message frame and how class balance and recency become weights. Which rows train,
validate or test, and where embeddings come from, is decided by others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray


class ExamplesError(ValueError):
    """Rows cannot be trained or tested on; the message says which column or label, and how many rows."""


@dataclass(frozen=True)
class Examples:
    """n labelled messages.

    `texts` n strings · `features` (n, f) float32, raw values without gaps · `labels` (n,) int64, positions in the
    declared labels · `weights` (n,) float32, loss weights · `embeddings` (n, d) float32 of the frozen encoder.
    """

    texts: tuple[str, ...]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    embeddings: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)


def from_frame(
    frame: pl.DataFrame,
    labels: Sequence[str],
    feature_defaults: Mapping[str, float],
    embeddings: NDArray[np.float32],
) -> Examples:
    """Turn labelled rows into examples of weight 1; a feature that is null or NaN takes its default.

    Args:
        frame: `text`, `label` and one column per feature.
        labels: the declared labels; their order numbers them.
        feature_defaults: feature column -> value where it is missing; their order is the network's.
        embeddings: (n, d) in the frame's row order.

    Raises:
        ExamplesError: no rows, a missing column, a label that is null or not declared, or embeddings of other rows.
    """
    _require(frame, labels, feature_defaults, len(embeddings))
    numbers = {label: number for number, label in enumerate(labels)}
    columns = [
        pl.col(name).cast(pl.Float32).fill_nan(None).fill_null(default) for name, default in feature_defaults.items()
    ]
    return Examples(
        texts=tuple(frame["text"]),
        features=frame.select(columns).to_numpy().astype(np.float32).reshape(frame.height, len(feature_defaults)),
        labels=np.array([numbers[label] for label in frame["label"]], dtype=np.int64),
        weights=np.ones(frame.height, dtype=np.float32),
        embeddings=np.ascontiguousarray(embeddings, dtype=np.float32),
    )


def recency_weights(event_times: pl.Series, until: datetime, recent_days: int, recent_weight: float) -> NDArray:
    """Weight `recent_weight` for rows of the last `recent_days` days before `until`, 1 for older ones; (n,) float32.

    >>> times = pl.Series([datetime(2026, 5, 1), datetime(2026, 5, 9)])
    >>> recency_weights(times, datetime(2026, 5, 10), recent_days=7, recent_weight=3.0).tolist()
    [1.0, 3.0]
    """
    recent = (event_times >= until - timedelta(days=recent_days)).to_numpy()
    return np.where(recent, recent_weight, 1.0).astype(np.float32)


def class_weights(labels: NDArray[np.int64], n_labels: int) -> NDArray[np.float32]:
    """Loss weight of each label, (n_labels,): the square root of the balanced weight n / (n_labels * n_label).

    The root is a compromise: full balance lets a handful of rare rows outvote hundreds of common ones, which
    weighted F1 punishes; no balance forgets them. A label without rows gets 0, for it has no say in the loss.

    >>> print(class_weights(np.array([0, 0, 0, 0, 1]), 2).round(2))
    [0.79 1.58]
    """
    counts = np.bincount(labels, minlength=n_labels)
    balanced = len(labels) / (n_labels * np.maximum(counts, 1))
    return np.where(counts > 0, np.sqrt(balanced), 0.0).astype(np.float32)


def _require(frame: pl.DataFrame, labels: Sequence[str], features: Mapping[str, float], n_embeddings: int) -> None:
    missing = [name for name in ("text", "label", *features) if name not in frame.columns]
    if missing:
        raise ExamplesError(f"the rows lack the columns {', '.join(missing)}; they have {', '.join(frame.columns)}")
    if frame.is_empty():
        raise ExamplesError("there are no rows; at least one labelled message is needed")
    if n_embeddings != frame.height:
        raise ExamplesError(f"{n_embeddings} embeddings do not belong to {frame.height} rows")
    unknown = frame.filter(pl.col("label").is_null() | ~pl.col("label").is_in(list(labels)))
    if not unknown.is_empty():
        found = ", ".join(sorted({str(label) for label in unknown["label"]}))
        raise ExamplesError(f"{unknown.height} rows have labels that are not declared ({found}); allowed: {labels}")
