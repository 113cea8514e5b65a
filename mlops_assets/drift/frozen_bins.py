"""Bins that are frozen on the reference, and the judgement of divergences between counts in them.

A divergence knows its own value; that it follows a chi-squared law when nothing has changed is said here
once. Bins never see the window: over both together, one outlier would hide a shift.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import chi2

from mlops_assets.drift.columns import Counts, Floats
from mlops_assets.drift.result import DriftResult, Limits, decide

BINS = 10
SMOOTHING = 0.5

_FEW_EDGES = 32


@dataclass(frozen=True)
class Divergence:
    """A divergence between two mixes, before it is judged.

    Attributes:
        name: of the statistic.
        value: what is reported and compared with the effect floor.
        quadratic: the value on the scale on which, for small changes, it is sum (p - q)^2 / p.
        rescale: takes a figure from that scale to the value's.
        plain_rule: what the field's rules say.
    """

    name: str
    value: float
    quadratic: float
    rescale: Callable[[float], float]
    plain_rule: Mapping[str, bool] = field(default_factory=dict)


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
    if len(edges) <= _FEW_EDGES:  # one pass per edge, each a plain comparison, beats a search per value
        reached = np.array([np.count_nonzero(values <= edge) for edge in edges], dtype=np.int64)
        return np.diff(reached, prepend=0, append=len(values))
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1).astype(np.int64)


def count_sorted(edges: Floats, values: Floats) -> Counts:
    """The same for sorted values: a look-up per edge instead of one per value."""
    reached = np.searchsorted(values, edges, side="right")
    return np.diff(reached, prepend=0, append=len(values)).astype(np.int64)


def used_bins(reference: Counts, current: Counts) -> tuple[Counts, Counts]:
    """Both rows of counts without the bins that are empty on both sides."""
    used = (reference + current) > 0
    return reference[used], current[used]


def smoothed_shares(counts: Counts) -> Floats:
    """Shares of each bin, half a row added to every bin so that none is zero."""
    return (counts + SMOOTHING) / (counts.sum() + SMOOTHING * len(counts))


def judge(divergence: Divergence, reference: Counts, current: Counts, limits: Limits, column: str) -> DriftResult:
    """Turn a divergence between counts over the same used bins into a result.

    Under the null, `quadratic` / (1/n + 1/m) is asymptotically chi-squared with bins - 1 degrees of freedom.
    The threshold is the larger of the effect floor and the value that noise exceeds with probability alpha.
    """
    n, m, degrees = int(reference.sum()), int(current.sum()), len(reference) - 1
    noise = 1 / n + 1 / m
    p_value = float(chi2.sf(divergence.quadratic / noise, degrees)) if degrees else 1.0
    by_noise = divergence.rescale(float(chi2.isf(limits.alpha, degrees)) * noise) if degrees else 0.0
    return DriftResult(
        statistic_name=divergence.name,
        column=column,
        statistic=divergence.value,
        p_value=p_value,
        threshold=max(limits.effect, by_noise),
        effect=divergence.value,
        n_reference=n,
        n_current=m,
        method=f"{len(reference)} used bins, smoothed by {SMOOTHING}, chi-squared law",
        verdict=decide(p_value, divergence.value, limits),
        plain_rule=divergence.plain_rule,
    )
