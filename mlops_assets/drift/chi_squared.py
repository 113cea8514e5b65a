"""Two-sample chi-squared test of homogeneity for one categorical column.

Null: both samples come from one distribution over categories. Both samples are random: taking the reference
for exact would alarm on half of all quiet windows. The effect is the total variation distance between the
two mixes, the categorical sibling of the Kolmogorov-Smirnov distance: free of sample sizes and their ratio,
which Cramer's V is not.

Sources: Pearson (1900); Cochran, "Some methods for strengthening the common chi-squared tests" (1954), for
the small-expected-count rule; Fisher's exact test for two by two tables that stay small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from itertools import count

import numpy as np
from scipy.stats import chi2, fisher_exact

from mlops_assets.drift.columns import Counts
from mlops_assets.drift.result import DriftResult, Figures, Limits, judged

NAME = "chi_squared"
PLAIN_RULE = "chi-squared p < 0.05"

_LEAST_EXPECTED = 5.0


@dataclass(frozen=True)
class Homogeneity:
    """Outcome of a test of homogeneity."""

    statistic: float
    p_value: float
    degrees: int
    method: str


def chi_squared(
    reference: Mapping[str, int], current: Mapping[str, int], limits: Limits = Limits(), *, column: str = ""
) -> DriftResult:
    """Compare how often each category occurs in two samples.

    >>> result = chi_squared({"a": 50, "b": 50}, {"a": 80, "b": 20}, column="country")
    >>> round(result.statistic, 2), round(result.effect, 2), result.verdict.value
    (19.78, 0.3, 'fail')
    """
    table = align(reference, current)
    n, m = (int(total) for total in table.sum(axis=1))

    def figures() -> Figures:
        test = homogeneity(table)
        plain_rule = {PLAIN_RULE: test.p_value < 0.05}
        return Figures(test.statistic, test.p_value, total_variation(table), test.method, plain_rule)

    return judged(NAME, column, n, m, limits, figures)


def align(reference: Mapping[str, int], current: Mapping[str, int]) -> Counts:
    """Counts of two samples over the union of their categories, shape (2, categories)."""
    names = sorted(reference.keys() | current.keys())
    rows = [[sample.get(name, 0) for name in names] for sample in (reference, current)]
    return np.array(rows, dtype=np.int64).reshape(2, len(names))


def homogeneity(table: Counts) -> Homogeneity:
    """Test two samples (2, categories); rare categories are pooled until each expects five rows.

    Which categories are pooled depends on their total alone, never on the split between the samples, so
    the p-value stays valid. Two by two tables that are still too thin are tested exactly, after Fisher.
    """
    pooled = pool_rare(table)
    if pooled.shape[1] < 2:
        return Homogeneity(0.0, 1.0, 0, "one category")
    plain = contingency(pooled)
    if pooled.shape[1] == 2 and expected(pooled).min() < _LEAST_EXPECTED:
        return Homogeneity(plain.statistic, float(fisher_exact(pooled).pvalue), 1, "fisher exact")
    pools = table[:, table.sum(axis=0) > 0].shape[1] - pooled.shape[1]
    return replace(plain, method=f"chi-squared, {pools + 1} rare categories pooled") if pools else plain


def contingency(table: Counts) -> Homogeneity:
    """Pearson's chi-squared over any table of counts (rows, categories), with no rule for small counts.

    >>> round(contingency(np.array([[4, 2, 0], [1, 1, 4]])).p_value, 8)
    0.04657615
    """
    used = table[np.ix_(table.sum(axis=1) > 0, table.sum(axis=0) > 0)]
    expects = expected(used)
    statistic = float(((used - expects) ** 2 / expects).sum())
    degrees = (used.shape[0] - 1) * (used.shape[1] - 1)
    return Homogeneity(statistic, float(chi2.sf(statistic, degrees)), degrees, "chi-squared")


def goodness_of_fit(observed: Counts, model: Counts) -> Homogeneity:
    """One sample of counts against fixed proportions, which `model` gives up to a factor.

    For a model that is known exactly. A reference *sample* is not: compare that with `homogeneity`.
    """
    expects = model * (observed.sum() / model.sum())
    statistic = float(((observed - expects) ** 2 / expects).sum())
    degrees = len(observed) - 1
    return Homogeneity(statistic, float(chi2.sf(statistic, degrees)), degrees, "goodness of fit")


def expected(table: Counts) -> np.ndarray:
    """Counts that the margins of a table lead to expect under the null."""
    return np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()


def pool_rare(table: Counts) -> Counts:
    """Merge the rarest categories into one until every cell expects at least five rows.

    Two categories are left alone. The pool itself ends as the last column.
    """
    smaller, rows = table.sum(axis=1).min(), table.sum()
    number = count()
    # Rarest first, of equally rare ones the latest: thousands of categories would be sorted thousands of times.
    rarest = [(column.sum(), -next(number), column) for column in table.T if column.any()]
    heapify(rarest)
    while len(rarest) > 2 and smaller * rarest[0][0] / rows < _LEAST_EXPECTED:
        (first, _, one), (second, _, other) = heappop(rarest), heappop(rarest)
        heappush(rarest, (first + second, -next(number), one + other))
    return np.array([column for *_, column in sorted(rarest, reverse=True)]).reshape(-1, len(table)).T


def total_variation(table: Counts) -> float:
    """Half the summed difference of two mixes: the largest gap in probability of any set of categories."""
    shares = table / table.sum(axis=1, keepdims=True)
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
