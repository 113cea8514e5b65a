"""Hellinger distance over bins that are frozen on the reference, or over categories.

Null: both samples come from one distribution; then 8 H^2 / (1/n + 1/m) is close to
chi-squared with B - 1 degrees of freedom. The effect is the distance itself, between 0 and 1.

Source: Hellinger (1909); Le Cam and Yang, "Asymptotics in Statistics" (2000), for the law.
"""

from __future__ import annotations

import numpy as np

from mlops_assets.drift.columns import Floats
from mlops_assets.drift.frozen_bins import judge_samples, root_divergence
from mlops_assets.drift.result import DriftResult, Limits

NAME = "hellinger"
PLAIN_RULE = "Hellinger distance >= 0.1"


def hellinger(
    reference: Floats, current: Floats, limits: Limits = Limits(effect=0.1), *, column: str = ""
) -> DriftResult:
    """Compare two numeric samples without missing values.

    >>> rng = np.random.default_rng(1)
    >>> hellinger(rng.normal(size=5000), rng.normal(1.0, size=5000), column="spend").verdict.value
    'fail'
    """
    return judge_samples(DIVERGENCE, reference, current, limits, column)


def distance(p: Floats, q: Floats) -> float:
    """Distance of two mixes; shares may be zero.

    >>> distance(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    1.0
    """
    return float(np.sqrt(max(((np.sqrt(p) - np.sqrt(q)) ** 2).sum() / 2, 0.0)))


DIVERGENCE = root_divergence(NAME, distance, lambda value: {PLAIN_RULE: value >= 0.1})
