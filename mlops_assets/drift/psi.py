"""Population stability index over bins that are frozen on the reference.

Null: both samples come from one distribution. Then PSI / (1/n + 1/m) is close to chi-squared with B - 1
degrees of freedom, which gives it a p-value; the field's limit of 0.2 alone alarms on most small windows.
Bins over reference and window together would let one outlier hide a shift, so they never see the window.

Source: Yurdakul and Naranjo, "Statistical properties of the population stability index" (2020).
"""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2

from mlops_assets.drift.columns import Counts, Floats
from mlops_assets.drift.result import DriftResult, Limits, decide, insufficient, too_small

NAME = "psi"
PLAIN_RULE = "PSI > 0.2"
BINS = 10

_SMOOTHING = 0.5
_DESIGN_LIMIT = 0.2


def psi(
    reference: Floats, current: Floats, limits: Limits = Limits(effect=_DESIGN_LIMIT), *, column: str = ""
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
    edges = freeze_edges(np.sort(reference))
    return from_counts(count_bins(edges, reference), count_bins(edges, current), limits, column)


def from_counts(reference: Counts, current: Counts, limits: Limits, column: str) -> DriftResult:
    """Judge counts over the same bins or categories; those empty on both sides are left out."""
    used = (reference + current) > 0
    n, m = int(reference.sum()), int(current.sum())
    if too_small(n, m, limits):
        return insufficient(NAME, column, n, m, limits)
    value = index(reference[used], current[used])
    noise, degrees = 1 / n + 1 / m, int(used.sum()) - 1
    p_value = float(chi2.sf(value / noise, degrees)) if degrees else 1.0
    threshold = max(limits.effect, float(chi2.ppf(1 - limits.alpha, degrees)) * noise if degrees else 0.0)
    return DriftResult(
        statistic_name=NAME,
        column=column,
        statistic=value,
        p_value=p_value,
        threshold=threshold,
        effect=value,
        n_reference=n,
        n_current=m,
        method=f"{len(reference)} frozen bins, smoothed by {_SMOOTHING}",
        verdict=decide(p_value, value, limits),
        plain_rule={PLAIN_RULE: value > _DESIGN_LIMIT},
    )


def index(reference: Counts, current: Counts) -> float:
    """PSI of two rows of counts, each smoothed by half a row per bin."""
    p = (reference + _SMOOTHING) / (reference.sum() + _SMOOTHING * len(reference))
    q = (current + _SMOOTHING) / (current.sum() + _SMOOTHING * len(current))
    return float(((p - q) * np.log(p / q)).sum())


def freeze_edges(reference: Floats, bins: int = BINS) -> Floats:
    """Inner edges of up to `bins` equally filled bins of a sorted, non-empty sample.

    A value that alone fills a bin gets a bin of its own, so that zero-inflated columns and constants keep
    their point mass apart from what lies around it.

    >>> freeze_edges(np.arange(100.0), bins=4)
    array([24., 49., 74.])
    """
    positions = np.ceil(np.arange(1, bins) * len(reference) / bins).astype(int) - 1
    edges = reference[np.maximum(positions, 0)]
    heavy = edges[1:][edges[1:] == edges[:-1]]
    return np.unique(np.concatenate([edges, np.nextafter(heavy, -np.inf)]))


def count_bins(edges: Floats, values: Floats) -> Counts:
    """Rows per bin; bin k holds what is above edge k-1 and at most edge k."""
    cells = np.searchsorted(edges, values, side="left")
    return np.bincount(cells, minlength=len(edges) + 1).astype(np.int64)
