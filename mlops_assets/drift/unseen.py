"""Categories in a window that the reference never had.

Null: a window row is as likely to be new as a reference row was to be the only one of its kind (Good and
Turing's estimate of the unseen mass), so open-ended columns such as shop names do not alarm for ever.
Tested one-sided and exactly; the effect is the share of window rows in unseen categories.

Source: Good, "The population frequencies of species and the estimation of population parameters" (1953).
"""

from __future__ import annotations

from collections.abc import Mapping

from scipy.stats import hypergeom

from mlops_assets.drift.result import DriftResult, Figures, Limits, judged

NAME = "unseen"
PLAIN_RULE = "any unseen category"

_SHOWN = 5


def unseen(
    reference: Mapping[str, int], current: Mapping[str, int], limits: Limits = Limits(effect=0.05), *, column: str = ""
) -> DriftResult:
    """Compare the categories of two samples.

    >>> unseen({"a": 50, "b": 50}, {"a": 40, "c": 60}, column="country").message
    'unseen: c (60)'
    """
    n, m = sum(reference.values()), sum(current.values())
    new = {name: count for name, count in current.items() if count and not reference.get(name)}
    fresh, single = sum(new.values()), sum(count == 1 for count in reference.values())
    most = sorted(new.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]

    def figures() -> Figures:
        return Figures(
            statistic=fresh / m,
            p_value=float(hypergeom.sf(fresh - 1, n + m, fresh + single, m)),
            effect=fresh / m,
            method="hypergeometric against the reference's singletons",
            plain_rule={PLAIN_RULE: fresh > 0},
            threshold=limits.effect or None,
            message="unseen: " + ", ".join(f"{name} ({count})" for name, count in most) if new else "",
        )

    return judged(NAME, column, n, m, limits, figures)
