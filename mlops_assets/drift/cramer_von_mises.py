"""Two-sample Cramer-von Mises test for one numeric column.

Null: both samples come from one distribution. More sensitive than Kolmogorov-Smirnov to a small shift of
the whole, less to one place. Exact for small samples, asymptotic above.

Source: Anderson, "On the distribution of the two-sample Cramer-von Mises criterion" (1962).
"""

from __future__ import annotations

import numpy as np
from scipy.stats import cramervonmises_2samp

from mlops_assets.drift.columns import Floats
from mlops_assets.drift.rank_tests import RankTest, judge
from mlops_assets.drift.result import DriftResult, Limits

NAME = "cramer_von_mises"


def cramer_von_mises(reference: Floats, current: Floats, limits: Limits = Limits(), *, column: str = "") -> DriftResult:
    """Compare two numeric samples without missing values; the effect is the Kolmogorov-Smirnov distance.

    >>> cramer_von_mises(np.arange(100.0), np.arange(100.0) + 30, column="spend").verdict.value
    'fail'
    """
    return judge(_TEST, reference, current, limits, column)


def _measure(reference: Floats, current: Floats) -> tuple[float, float]:
    test = cramervonmises_2samp(reference, current)
    return float(test.statistic), float(np.clip(test.pvalue, 0.0, 1.0))


_TEST = RankTest(NAME, "exact to 20 rows, asymptotic above", "Cramer-von Mises p < 0.05", _measure)
