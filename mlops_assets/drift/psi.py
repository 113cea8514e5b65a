"""Population stability index over bins that are frozen on the reference.

Null: both samples come from one distribution. Then PSI / (1/n + 1/m) is close to chi-squared with B - 1
degrees of freedom, which gives it a p-value; the field's limit of 0.2 alone alarms on most small windows.
Bins over reference and window together would let one outlier hide a shift, so they never see the window.

Source: Yurdakul and Naranjo, "Statistical properties of the population stability index" (2020).
"""

from __future__ import annotations

import numpy as np

from mlops_assets.drift.columns import Floats
from mlops_assets.drift.frozen_bins import Divergence, judge_samples
from mlops_assets.drift.result import DriftResult, Limits

NAME = "psi"
PLAIN_RULE = "PSI > 0.2"
DESIGN_LIMIT = 0.2


def psi(
    reference: Floats, current: Floats, limits: Limits = Limits(effect=DESIGN_LIMIT), *, column: str = ""
) -> DriftResult:
    """Compare two numeric samples without missing values; `limits.effect` is the PSI that counts.

    >>> rng = np.random.default_rng(1)
    >>> result = psi(rng.normal(size=5000), rng.normal(1.0, size=5000), column="spend")
    >>> result.statistic > 0.5, result.verdict.value
    (True, 'fail')
    """
    return judge_samples(DIVERGENCE, reference, current, limits, column)


def index(p: Floats, q: Floats) -> float:
    """PSI of two mixes; no share may be zero.

    >>> round(index(np.array([0.5, 0.5]), np.array([0.4, 0.6])), 4)
    0.0405
    """
    return float(((p - q) * np.log(p / q)).sum())


DIVERGENCE = Divergence(
    NAME,
    index,
    to_quadratic=lambda value: value,
    from_quadratic=lambda quadratic: quadratic,
    plain_rule=lambda value: {PLAIN_RULE: value > DESIGN_LIMIT},
)
