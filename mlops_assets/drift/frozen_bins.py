"""Bins that are frozen on the reference, and the judgement of divergences between counts in them.

A divergence knows its own value; that it follows a chi-squared law when nothing has changed is said here
once. Bins never see the window: over both together, one outlier would hide a shift.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from mlops_assets.drift.columns import Counts, Floats
from mlops_assets.drift.result import DriftResult, Figures, Limits, insufficient, judged, too_small

BINS = 10
SMOOTHING = 0.5


@dataclass(frozen=True)
class Divergence:
    """A divergence between two mixes and its scale.

    Attributes:
        name: of the statistic.
        measure: (shares, shares) -> value, which is reported and compared with the effect floor.
        to_quadratic: takes a value to the scale on which, for small changes, it is sum (p - q)^2 / p.
        from_quadratic: takes it back.
        plain_rule: what the field's rules say of a value.
    """

    name: str
    measure: Callable[[Floats, Floats], float]
    to_quadratic: Callable[[float], float]
    from_quadratic: Callable[[float], float]
    plain_rule: Callable[[float], Mapping[str, bool]]


def root_divergence(
    name: str, measure: Callable[[Floats, Floats], float], plain_rule: Callable[[float], Mapping[str, bool]]
) -> Divergence:
    """A distance whose square is, for small changes, an eighth of sum (p - q)^2 / p."""
    return Divergence(
        name,
        measure,
        to_quadratic=lambda value: 8 * value**2,
        from_quadratic=lambda quadratic: float(np.sqrt(quadratic / 8)),
        plain_rule=plain_rule,
    )


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
    """Rows per bin; bin k holds what is above edge k-1 and at most edge k.

    One plain comparison of all rows per edge: with few edges that beats a search per row.
    """
    reached = np.array([np.count_nonzero(values <= edge) for edge in edges], dtype=np.int64)
    return np.diff(reached, prepend=0, append=len(values))


def count_sorted(edges: Floats, values: Floats) -> Counts:
    """The same for sorted values: a look-up per edge instead of one per value."""
    reached = np.searchsorted(values, edges, side="right")
    return np.diff(reached, prepend=0, append=len(values)).astype(np.int64)


def smoothed_shares(counts: Counts | Floats) -> Floats:
    """Shares of each bin, half a row added to every bin so that none is zero."""
    return (counts + SMOOTHING) / (counts.sum() + SMOOTHING * len(counts))


def judge_samples(
    divergence: Divergence, reference: Floats, current: Floats, limits: Limits, column: str
) -> DriftResult:
    """Judge two numeric samples without missing values, in any order, over bins frozen on the reference."""
    n, m = len(reference), len(current)
    if too_small(n, m, limits):
        return insufficient(divergence.name, column, n, m, limits)
    ordered = np.sort(reference)
    edges = freeze_edges(ordered)
    return judge_counts(divergence, count_sorted(edges, ordered), count_bins(edges, current), limits, column)


def judge_counts(
    divergence: Divergence, reference: Counts | Floats, current: Counts | Floats, limits: Limits, column: str
) -> DriftResult:
    """Judge counts over the same bins or categories; those empty on both sides are left out.

    Counts are of independent rows, and need not be whole where others were discounted.

    Under the null, the quadratic value / (1/n + 1/m) is asymptotically chi-squared with bins - 1 degrees of
    freedom. The threshold is the larger of the effect floor and the value that noise exceeds with
    probability alpha.
    """
    n, m = round(float(reference.sum())), round(float(current.sum()))

    def figures() -> Figures:
        used = (reference + current) > 0
        value = divergence.measure(smoothed_shares(reference[used]), smoothed_shares(current[used]))
        noise, degrees = 1 / n + 1 / m, int(used.sum()) - 1
        by_noise = divergence.from_quadratic(float(chi2.isf(limits.alpha, degrees)) * noise) if degrees else 0.0
        return Figures(
            statistic=value,
            p_value=float(chi2.sf(divergence.to_quadratic(value) / noise, degrees)) if degrees else 1.0,
            effect=value,
            method=f"{degrees + 1} used bins, smoothed by {SMOOTHING}, chi-squared law",
            plain_rule=divergence.plain_rule(value),
            threshold=max(limits.effect, by_noise),
        )

    return judged(divergence.name, column, n, m, limits, figures)
