"""Categories in a window that the reference never had.

Null: both samples come from one distribution, so which of their rows are the reference's is chance, and rare
categories, such as those of open-ended shop names, may all fall into the window. Tested one-sided, by a bound of the
permutation test: which categories the reference misses is negatively associated, so that Chernoff's bound with each
one's own probability holds. The effect is the share of window rows in unseen categories.

Sources: Joag-Dev and Proschan, "Negative association of random variables" (1983); Chernoff (1952).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import gammaln

from mlops_assets.drift.result import DriftResult, Figures, Limits, judged

NAME = "unseen"
PLAIN_RULE = "any unseen category"

_SHOWN = 5
_STEEPEST = 60.0  # of the tilts tried: beyond, the bound changes by less than a float shows


def unseen(
    reference: Mapping[str, int], current: Mapping[str, int], limits: Limits = Limits(effect=0.05), *, column: str = ""
) -> DriftResult:
    """Compare the categories of two samples.

    >>> unseen({"a": 50, "b": 50}, {"a": 40, "c": 60}, column="country").message
    'unseen: c (60)'
    """
    n, m = sum(reference.values()), sum(current.values())
    new = {name: count for name, count in current.items() if count and not reference.get(name)}
    fresh = sum(new.values())
    most = sorted(new.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]

    def figures() -> Figures:
        return Figures(
            statistic=fresh / m,
            p_value=chance(reference, current, fresh),
            effect=fresh / m,
            method="Chernoff bound of the permutation test",
            plain_rule={PLAIN_RULE: fresh > 0},
            threshold=limits.effect or None,
            message="unseen: " + ", ".join(f"{name} ({count})" for name, count in most) if new else "",
        )

    return judged(NAME, column, n, m, limits, figures)


def chance(reference: Mapping[str, int], current: Mapping[str, int], fresh: int) -> float:
    """Upper bound of P(`fresh` rows or more are in categories that the reference misses), when nothing has changed.

    >>> round(chance({"a": 50, "b": 50}, {"a": 47, "c": 3}, 3), 3)  # that all three of c are the window's: 0.036
    0.041
    """
    n, m = sum(reference.values()), sum(current.values())
    together = Counter(reference) + Counter(current)
    missable = Counter(size for size in together.values() if size <= m)
    sizes, categories = np.array(list(missable.items())).reshape(-1, 2).T
    log_missed = gammaln(n + m - sizes + 1) - gammaln(m - sizes + 1) - gammaln(n + m + 1) + gammaln(m + 1)

    def log_bound(tilt: float) -> float:
        met = np.log1p(-np.exp(log_missed))
        return float(categories @ np.logaddexp(met, log_missed + tilt * sizes)) - tilt * fresh

    return float(np.exp(min(minimize_scalar(log_bound, bounds=(0.0, _STEEPEST), method="bounded").fun, 0.0)))
