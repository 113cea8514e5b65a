"""Energy distance between two numeric samples.

Null: both samples come from one distribution; the p-value is by simulated Brownian bridges. The statistic
is sqrt(2 int (F - G)^2); the effect is that for a column scaled by the reference's standard deviation.

Source: Szekely and Rizzo, "Energy statistics: A class of statistics based on distances" (2013).
"""

from __future__ import annotations

import numpy as np

from mlops_assets.drift.columns import Floats
from mlops_assets.drift.gap_integral import BRIDGES, integral, significance
from mlops_assets.drift.result import DriftResult, Limits, decide, insufficient, too_small

NAME = "energy"
PLAIN_RULE = "energy distance >= 0.1"

_POWER = 2


def energy(reference: Floats, current: Floats, limits: Limits = Limits(effect=0.1), *, column: str = "") -> DriftResult:
    """Compare two numeric samples without missing values.

    Raises:
        DriftInputError: a value is infinite.

    >>> rng = np.random.default_rng(1)
    >>> energy(rng.normal(size=5000), rng.normal(1.0, size=5000), column="spend").verdict.value
    'fail'
    """
    return compare_sorted(np.sort(reference), np.sort(current), limits, column)


def compare_sorted(reference: Floats, current: Floats, limits: Limits, column: str) -> DriftResult:
    """The same for samples that are sorted already."""
    n, m = len(reference), len(current)
    if too_small(n, m, limits):
        return insufficient(NAME, column, n, m, limits)
    area = integral(reference, current, _POWER, column)
    p_value = significance(area, _POWER, reference, current)
    effect = relative(area, reference)
    return DriftResult(
        statistic_name=NAME,
        column=column,
        statistic=float(np.sqrt(2 * area)),
        p_value=p_value,
        threshold=None,
        effect=effect,
        n_reference=n,
        n_current=m,
        method=f"{BRIDGES} Brownian bridges",
        verdict=decide(p_value, effect, limits),
        plain_rule={PLAIN_RULE: effect >= 0.1},
    )


def relative(area: float, reference: Floats) -> float:
    """Distance of the column scaled by the reference's standard deviation; a constant one is left as it is."""
    return float(np.sqrt(2 * area / (float(reference.std()) or 1.0)))
