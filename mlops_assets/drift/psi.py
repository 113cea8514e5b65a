"""Population stability index over bins that are frozen on the reference.

Null: both samples come from one distribution. Then PSI / (1/n + 1/m) is close to chi-squared with B - 1
degrees of freedom, which gives it a p-value; the field's limit of 0.2 alone alarms on most small windows.
Bins over reference and window together would let one outlier hide a shift, so they never see the window.

Source: Yurdakul and Naranjo, "Statistical properties of the population stability index" (2020).
"""

from __future__ import annotations

import numpy as np

from mlops_assets.drift.columns import Counts, Floats
from mlops_assets.drift.frozen_bins import Divergence, count_sorted, freeze_edges, judge, smoothed_shares, used_bins
from mlops_assets.drift.result import DriftResult, Limits, insufficient, too_small

NAME = "psi"
PLAIN_RULE = "PSI > 0.2"
DESIGN_LIMIT = 0.2


def psi(
    reference: Floats, current: Floats, limits: Limits = Limits(effect=DESIGN_LIMIT), *, column: str = ""
) -> DriftResult:
    """Compare two numeric samples without missing values; `limits.effect` is the PSI that counts.

    >>> rng = np.random.default_rng(1)
    >>> result = psi(rng.normal(size=5000), rng.normal(1.0, size=5000), column="spend")
    >>> result.statistic > 0.5, result.verdict.value
    (True, 'fail')
    """
    n, m = len(reference), len(current)
    if too_small(n, m, limits):
        return insufficient(NAME, column, n, m, limits)
    ordered = np.sort(reference)
    edges = freeze_edges(ordered)
    return from_counts(count_sorted(edges, ordered), count_sorted(edges, np.sort(current)), limits, column)


def from_counts(reference: Counts, current: Counts, limits: Limits, column: str) -> DriftResult:
    """Judge counts over the same bins or categories; those empty on both sides are left out."""
    n, m = int(reference.sum()), int(current.sum())
    if too_small(n, m, limits):
        return insufficient(NAME, column, n, m, limits)
    before, now = used_bins(reference, current)
    value = index(before, now)
    divergence = Divergence(NAME, value, value, lambda quadratic: quadratic, {PLAIN_RULE: value > DESIGN_LIMIT})
    return judge(divergence, before, now, limits, column)


def index(reference: Counts, current: Counts) -> float:
    """PSI of two rows of counts, each smoothed by half a row per bin."""
    p, q = smoothed_shares(reference), smoothed_shares(current)
    return float(((p - q) * np.log(p / q)).sum())
