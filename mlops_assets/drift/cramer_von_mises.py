"""Two-sample Cramer-von Mises test for one numeric column.

Null: both samples come from one distribution. More sensitive than Kolmogorov-Smirnov to a small shift of
the whole, less to one place. Exact for small samples, asymptotic above.

Source: Anderson, "On the distribution of the two-sample Cramer-von Mises criterion" (1962).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.stats import cramervonmises_2samp

from mlops_assets.drift import kolmogorov_smirnov as ks
from mlops_assets.drift.columns import Floats
from mlops_assets.drift.result import DriftResult, Limits, decide, insufficient, too_small

NAME = "cramer_von_mises"
PLAIN_RULE = "Cramer-von Mises p < 0.05"


def cramer_von_mises(reference: Floats, current: Floats, limits: Limits = Limits(), *, column: str = "") -> DriftResult:
    """Compare two numeric samples without missing values; the effect is the Kolmogorov-Smirnov distance.

    >>> cramer_von_mises(np.arange(100.0), np.arange(100.0) + 30, column="spend").verdict.value
    'fail'
    """
    n, m = len(reference), len(current)
    limits = replace(limits, min_rows=max(limits.min_rows, 2))  # one row has no statistic
    if too_small(n, m, limits):
        return insufficient(NAME, column, n, m, limits)
    effect = ks.distance(np.sort(reference), np.sort(current))
    statistic, p_value = _measure(reference, current)
    return DriftResult(
        statistic_name=NAME,
        column=column,
        statistic=statistic,
        p_value=p_value,
        threshold=None,
        effect=effect,
        n_reference=n,
        n_current=m,
        method="exact to 20 rows, asymptotic above",
        verdict=decide(p_value, effect, limits),
        plain_rule={PLAIN_RULE: p_value < 0.05},
    )


def _measure(reference: Floats, current: Floats) -> tuple[float, float]:
    test = cramervonmises_2samp(reference, current)
    return float(test.statistic), float(np.clip(test.pvalue, 0.0, 1.0))
