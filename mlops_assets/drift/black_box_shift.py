"""Black-box shift detection: Kolmogorov-Smirnov on each softmax column, with Bonferroni's correction.

Null: the model's outputs have one distribution in reference and window. The model is used as it is, as a
reduction of its input to a few numbers; of the detectors compared by Rabanser et al. this one was the best
for its price. The effect is the largest distance of a column that is significant after correction.

Source: Rabanser, Gunnemann, Lipton, "Failing Loudly: An Empirical Study of Methods for Detecting Dataset
Shift" (2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mlops_assets.drift import kolmogorov_smirnov as ks
from mlops_assets.drift.cells import Sample
from mlops_assets.drift.columns import Floats
from mlops_assets.drift.result import DriftInputError, DriftResult, Limits, insufficient, too_small
from mlops_assets.verdict import Verdict

NAME = "black_box_shift"
PLAIN_RULE = "KS p < 0.05 / classes"

_ROUNDING = 1e-4


def black_box_shift(
    reference: np.ndarray, current: np.ndarray, labels: Sequence[str], limits: Limits = Limits(effect=0.2)
) -> tuple[DriftResult, ...]:
    """Compare softmax outputs of shape (rows, labels): the joint result first, then one per label.

    Raises:
        DriftInputError: shapes do not fit the labels, or a value is no probability.
    """
    before, now = (check_probabilities(values, labels).T for values in (reference, current))
    n, m = before.shape[1], now.shape[1]
    distances = [ks.distance(Sample(np.sort(b)), c) for b, c in zip(before, now, strict=True)]
    return from_distances(distances, n, m, labels, limits)


def from_distances(
    distances: Sequence[float] | Floats, n: int, m: int, labels: Sequence[str], limits: Limits
) -> tuple[DriftResult, ...]:
    """Judge the Kolmogorov-Smirnov distance of each label between samples of `n` and `m` rows."""
    if too_small(n, m, limits):
        return (insufficient(NAME, "*", n, m, limits),)
    each = replace(limits, alpha=limits.alpha / len(labels))
    per_label = tuple(
        ks.from_distance(float(distance), n, m, each, f"probability of {label}")
        for label, distance in zip(labels, distances, strict=True)
    )
    return (_joint(per_label, limits), *per_label)


def check_probabilities(values: np.ndarray, labels: Sequence[str]) -> Floats:
    """Probabilities as float64 (rows, labels), refused where they are not what they claim to be."""
    if values.dtype.kind not in "fiu":
        raise DriftInputError(f"probabilities: need numbers, have {values.dtype}")
    floats = values.astype(np.float64, copy=False)
    if floats.ndim != 2 or floats.shape[1] != len(labels):
        raise DriftInputError(f"probabilities: need shape (rows, {len(labels)}), have {floats.shape}")
    if not np.isfinite(floats).all():
        rows = int((~np.isfinite(floats)).any(axis=1).sum())
        raise DriftInputError(f"probabilities: {rows} of {len(floats)} rows are not finite; look at the model")
    if len(floats) and (floats.min() < -_ROUNDING or floats.max() > 1 + _ROUNDING):
        raise DriftInputError("probabilities: some are below 0 or above 1; give softmax outputs, not logits")
    return floats


def _joint(per_label: Sequence[DriftResult], limits: Limits) -> DriftResult:
    """Bonferroni over the labels; among significant ones the largest effect speaks for all."""
    drifted = [r for r in per_label if r.verdict is Verdict.FAIL]
    lead = max(drifted or per_label, key=lambda r: r.effect or 0.0)
    classes = len(per_label)
    p_value = min(1.0, classes * (lead.p_value if lead.p_value is not None else 1.0))
    least = min(r.p_value for r in per_label if r.p_value is not None)
    return replace(
        lead,
        statistic_name=NAME,
        column="*",
        p_value=p_value,
        threshold=limits.effect or None,
        method=f"{lead.method}, Bonferroni over {classes} labels",
        plain_rule={PLAIN_RULE: least < 0.05 / classes},
        message=f"largest in {lead.column}",
    )
