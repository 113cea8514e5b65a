"""Energy distance between two numeric samples.

Null: both samples come from one distribution; the p-value is by simulated Brownian bridges. The statistic
is sqrt(2 int (F - G)^2); the effect is that for a column scaled by the reference's standard deviation.

Source: Szekely and Rizzo, "Energy statistics: A class of statistics based on distances" (2013).
"""

from __future__ import annotations

import numpy as np

from mlops_assets.drift.columns import Floats
from mlops_assets.drift.gap_integral import GapDistance, judge
from mlops_assets.drift.result import DriftResult, Limits

NAME = "energy"


def energy(reference: Floats, current: Floats, limits: Limits = Limits(effect=0.1), *, column: str = "") -> DriftResult:
    """Compare two numeric samples without missing values.

    Raises:
        DriftInputError: a value is infinite.

    >>> rng = np.random.default_rng(1)
    >>> energy(rng.normal(size=5000), rng.normal(1.0, size=5000), column="spend").verdict.value
    'fail'
    """
    return judge(_DISTANCE, np.sort(reference), np.sort(current), limits, column)


_DISTANCE = GapDistance(NAME, 2, lambda area, unit: float(np.sqrt(2 * area / unit)), "energy distance >= 0.1")
