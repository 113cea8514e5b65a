"""Wasserstein-1 distance (earth mover's) between two numeric samples.

Null: both samples come from one distribution; the p-value is by simulated Brownian bridges. The statistic has the
column's unit; the effect is in standard deviations of the reference.

Source: Vallender, "Calculation of the Wasserstein distance between probability distributions on the line" (1974).
"""

from __future__ import annotations

import numpy as np

from mlops_assets.drift.columns import Floats
from mlops_assets.drift.gap_integral import GapDistance, judge
from mlops_assets.drift.result import DriftResult, Limits

NAME = "wasserstein"


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
    return judge(_DISTANCE, np.sort(reference), np.sort(current), limits, column)


_DISTANCE = GapDistance(NAME, 1, lambda area, unit: area / unit, "Wasserstein >= 0.1 sd")
