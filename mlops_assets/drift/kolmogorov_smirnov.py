"""Two-sample Kolmogorov-Smirnov test for one numeric column.

Null: both samples come from one continuous distribution. The p-value is exact for small samples and
asymptotic above; with ties it is conservative. The effect is the distance D itself, between 0 and 1.

Sources: Hodges, "The significance probability of the Smirnov two-sample test" (1958), for the path count;
Vrbik, "Small-sample corrections to Kolmogorov-Smirnov test statistic" (2018), for the correction 1/(6 sqrt(n)).
"""

from __future__ import annotations

import numpy as np
from scipy.special import kolmogorov
from scipy.stats import kstwo

from mlops_assets.drift.cells import COMPILED_ROWS, Sample
from mlops_assets.drift.columns import Counts, Floats
from mlops_assets.drift.result import DriftResult, Figures, Limits, insufficient, judged, too_small

NAME = "kolmogorov_smirnov"
PLAIN_RULE = "KS p < 0.01"

# Up to here the path count takes milliseconds; above, the asymptotic law is as good.
_EXACT_CELLS = 1_000_000
# kstwo.sf takes up to 600 ms for large n; from here on Kolmogorov's law, corrected, agrees to 1e-5.
_LARGE = 50_000


def kolmogorov_smirnov(
    reference: Floats, current: Floats, limits: Limits = Limits(), *, column: str = ""
) -> DriftResult:
    """Compare two unordered samples without missing values.

    >>> result = kolmogorov_smirnov(np.arange(100.0), np.arange(100.0) + 30, column="spend")
    >>> round(result.effect, 2), result.verdict.value
    (0.3, 'fail')
    """
    n, m = len(reference), len(current)
    if too_small(n, m, limits):
        return insufficient(NAME, column, n, m, limits)
    return from_distance(distance(Sample(np.sort(reference)), current), n, m, limits, column)


def from_distance(d: float, n: int, m: int, limits: Limits, column: str) -> DriftResult:
    """Judge a distance between samples of `n` and `m` rows."""

    def figures() -> Figures:
        p_value, method = significance(d, n, m)
        return Figures(d, p_value, d, method, {PLAIN_RULE: p_value < 0.01}, threshold=limits.effect or None)

    return judged(NAME, column, n, m, limits, figures)


def distance(reference: Sample, current: Floats) -> float:
    """Largest gap between the two empirical distribution functions, `current` in any order; 0 when either is empty.

    A large window is counted in the cells of the reference first: only rows of cells that can hold a larger gap
    than there is at the edges are looked at one by one.
    """
    if not len(reference.values):
        return 0.0
    if len(current) < COMPILED_ROWS:
        values, copies = np.unique(current, return_counts=True)
        return _largest_gap(reference.values, values, copies, np.cumsum(copies), len(current))
    from mlops_assets.drift.compiled import select  # loads a compiler

    cells, current = reference.cells, np.ascontiguousarray(current)
    counts, found = cells.locate(current)
    at_edges = cells.distance(counts)
    searched = cells.bounds(counts) > at_edges
    skipped = np.cumsum(np.where(searched, 0, counts))
    rows = select(current, found, searched, int(counts[searched].sum()))
    values, copies = np.unique(rows, return_counts=True)
    upto = np.cumsum(copies) + skipped[np.searchsorted(cells.edges, values)]
    return max(at_edges, _largest_gap(reference.values, values, copies, upto, len(current)))


def _largest_gap(reference: Floats, values: Floats, copies: Counts, upto: Counts, rows: int) -> float:
    """Largest gap at distinct values of a window and just below them: between two, the window's own function is flat.

    Of the window's `rows`, so many are `copies` of each value, and so many are at most that value (`upto`).
    """
    at = np.searchsorted(reference, values, side="right") / len(reference) - upto / rows
    below = np.searchsorted(reference, values, side="left") / len(reference) - (upto - copies) / rows
    return float(np.abs(np.concatenate([at, below])).max(initial=0.0))


def significance(d: float, n: int, m: int) -> tuple[float, str]:
    """P(D >= d) for samples of `n` and `m` rows, and the method that gave it."""
    if n * m <= _EXACT_CELLS:
        return exact_p_value(d, n, m), "exact"
    effective = n * m / (n + m)
    if effective < _LARGE:
        return float(np.clip(kstwo.sf(d, round(effective)), 0.0, 1.0)), "asymptotic (kstwo)"
    root = np.sqrt(effective)
    return float(kolmogorov(d * root + 1 / (6 * root))), "asymptotic (kolmogorov)"


def exact_p_value(d: float, n: int, m: int) -> float:
    """Share of all orderings of `n` and `m` distinct values whose distance is at least `d`.

    Counts the monotone lattice paths that leave the band |i/n - j/m| < d, as shares of all paths, so that
    every term is positive and small p-values keep their relative accuracy. O(n m) time, O(max(n, m)) memory.

    >>> round(exact_p_value(0.5, 9, 10), 12)
    0.105577085453
    """
    n, m = min(n, m), max(n, m)
    # The distance is a multiple of 1/(n m): half a step below it separates "at least d" from the rest.
    limit = (np.floor(d * n * m + 1e-7) - 0.5) / (n * m)
    columns = np.arange(m + 1) / m
    every = np.ones(m + 1)  # all paths to (i, j), scaled such that those to (n, m) make 1
    left = np.where(columns > limit, 1.0, 0.0)  # those among them that have left the band
    for i in range(1, n + 1):
        weight = i / (i + m)
        every = np.cumsum(weight * every)
        low, high = np.searchsorted(columns, (i / n - limit, i / n + limit), side="left")
        inside = np.cumsum(weight * left[low:high])
        if low > 0:
            inside += every[low - 1]
        left = every.copy()
        left[low:high] = inside
    return float(min(left[-1], 1.0))
