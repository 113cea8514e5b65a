"""Wasserstein-1 distance (earth mover's) between two numeric samples.

Null: both samples come from one distribution; the p-value is by simulated Brownian bridges. The statistic has the
column's unit; the effect is in standard deviations of the reference.

Source: Vallender, "Calculation of the Wasserstein distance between probability distributions on the line" (1974).
"""

from __future__ import annotations

import numpy as np

from mlops_assets.drift.columns import Floats
from mlops_assets.drift.gap_integral import BRIDGES, integral, significance
from mlops_assets.drift.result import DriftResult, Limits, decide, insufficient, too_small

NAME = "wasserstein"
PLAIN_RULE = "Wasserstein >= 0.1 sd"

_POWER = 1


def wasserstein(
    reference: Floats, current: Floats, limits: Limits = Limits(effect=0.1), *, column: str = ""
) -> DriftResult:
    """Compare two numeric samples without missing values.

    Raises:
        DriftInputError: a value is infinite.

    >>> rng = np.random.default_rng(1)
    >>> wasserstein(rng.normal(size=5000), rng.normal(1.0, size=5000), column="spend").verdict.value
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
        statistic=area,
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
    """Distance in standard deviations of the reference; of a constant one, in units of its column."""
    return area / (float(reference.std()) or 1.0)
