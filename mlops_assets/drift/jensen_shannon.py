"""Jensen-Shannon distance over bins that are frozen on the reference, or over categories.

Null: both samples come from one distribution; then 8 JS^2 / (1/n + 1/m) is close to
chi-squared with B - 1 degrees of freedom. The effect is the distance itself, between 0 and
sqrt(ln 2) = 0.83.

Source: Lin, "Divergence measures based on the Shannon entropy" (1991); Endres and Schindelin (2003).
"""

from __future__ import annotations

import numpy as np

from mlops_assets.drift.columns import Counts, Floats
from mlops_assets.drift.frozen_bins import Divergence, count_sorted, freeze_edges, judge, smoothed_shares, used_bins
from mlops_assets.drift.result import DriftResult, Limits, insufficient, too_small

NAME = "jensen_shannon"
PLAIN_RULE = "JS distance >= 0.1"


def jensen_shannon(
    reference: Floats, current: Floats, limits: Limits = Limits(effect=0.1), *, column: str = ""
) -> DriftResult:
    """Compare two numeric samples without missing values.

    >>> rng = np.random.default_rng(1)
    >>> jensen_shannon(rng.normal(size=5000), rng.normal(1.0, size=5000), column="spend").verdict.value
    'fail'
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
    value = distance(smoothed_shares(before), smoothed_shares(now))
    divergence = Divergence(NAME, value, 8 * value**2, lambda x: float(np.sqrt(x / 8)), {PLAIN_RULE: value >= 0.1})
    return judge(divergence, before, now, limits, column)


def distance(p: Floats, q: Floats) -> float:
    """Distance of two mixes: the root of the Jensen-Shannon divergence in nats; shares may be zero.

    >>> distance(np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    0.0
    """
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return float(np.sqrt(max(divergence, 0.0)))


def _relative_entropy(p: Floats, q: Floats) -> float:
    there = p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())
