"""Looks for every kind of leakage in a split snapshot whose features are joined.

Gathers what the single searches find; what may pass is the gate's to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl

from mlops_assets.data.assembly import leakage_of
from mlops_assets.data.column_leak import column_leaks
from mlops_assets.data.entity_leak import entity_leak
from mlops_assets.data.split import ASIDE, SplitRule
from mlops_assets.data.time_leak import early_features, early_labels, out_of_split
from mlops_assets.leaks import Leakage
from mlops_assets.spec import ModelSpec


def find_leaks(frame: pl.DataFrame, manifest: Mapping[str, Any], spec: ModelSpec) -> Leakage:
    """Search the rows of a snapshot.

    Parameters
    ----------
    frame : its rows with `part` and the features, and `features_known_at` (`time_leak.with_known_at`).
    manifest : of the snapshot: when it was taken, and its split rule.
    """
    frame = frame.filter(pl.col("part") != ASIDE)
    features = tuple(spec.features.defaults)
    texts = leakage_of(frame, spec.data.near_duplicate_similarity)
    return Leakage(
        rows={
            "exact": len(texts.exact),
            "near": len(texts.near),
            "time.label": early_labels(frame, datetime.fromisoformat(manifest["as_of"])),
            "time.split": out_of_split(frame, SplitRule.from_dict(manifest["split"])),
            "time.feature": early_features(frame, features),
        },
        entity=entity_leak(frame, confidence=spec.gate.confidence, seed=spec.training.seed),
        columns=column_leaks(frame, "label", features),
        known=spec.features.known_at_event,
    )
