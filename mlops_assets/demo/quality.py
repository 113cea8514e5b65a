"""Quality before and after: two versions on the same named rows, with the features that were served.

An evaluation for the report; nothing in the loop reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from mlops_assets.lineage.measures import answers
from mlops_assets.release.evidence import numbers_of
from mlops_assets.resources.registry import Version
from mlops_assets.spec import ModelSpec
from mlops_assets.training.artefact import Predictor
from mlops_assets.training.evaluation import evaluate


def compare_versions(
    spec: ModelSpec, messages: pl.DataFrame, features: pl.DataFrame, days: Sequence[datetime], versions: list[Version]
) -> dict[str, Any]:
    """Weighted F1 of the first and the last of `versions` on the labelled messages of `days`.

    Args:
        messages: canonical messages with their true labels.
        features: `message_id` and one column per feature, as they were served.
    """
    end = days[-1] + timedelta(days=1)
    rows = messages.filter(
        pl.col("event_timestamp").is_between(days[0], end, closed="left") & pl.col("label").is_not_null()
    ).join(features, on="message_id", how="left", maintain_order="left")
    truth = numbers_of(rows["label"], spec.data.labels)
    first, last = versions[0], versions[-1]
    return {
        "named": f"messages of {days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}",
        "rows": rows.height,
        "first_version": first.version,
        "last_version": last.version,
        "before": _f1(first, rows, truth, spec),
        "after": _f1(last, rows, truth, spec),
    }


def _f1(version: Version, rows: pl.DataFrame, truth: np.ndarray, spec: ModelSpec) -> float:
    predictor = Predictor.load(version.artefact, expected_digest=version.artefact_digest, threads=2)
    return evaluate(truth, answers(predictor, rows, spec.data.labels), spec.data.labels).f1_weighted
