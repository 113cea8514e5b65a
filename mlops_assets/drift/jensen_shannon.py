"""Jensen-Shannon distance over bins that are frozen on the reference, or over categories.

Null: both samples come from one distribution; then 8 JS^2 / (1/n + 1/m) is close to
chi-squared with B - 1 degrees of freedom. The effect is the distance itself, between 0 and
sqrt(ln 2) = 0.83.

Source: Lin, "Divergence measures based on the Shannon entropy" (1991); Endres and Schindelin (2003).
"""

from __future__ import annotations

import numpy as np

from mlops_assets.drift.columns import Floats
from mlops_assets.drift.frozen_bins import judge_samples, root_divergence
from mlops_assets.drift.result import DriftResult, Limits

NAME = "jensen_shannon"
PLAIN_RULE = "JS distance >= 0.1"


def jensen_shannon(
    reference: Floats, current: Floats, limits: Limits = Limits(effect=0.1), *, column: str = ""
) -> DriftResult:
    """Compare two numeric samples without missing values.

    >>> rng = np.random.default_rng(1)
    >>> jensen_shannon(rng.normal(size=5000), rng.normal(1.0, size=5000), column="spend").verdict.value
    'fail'
    """
    return judge_samples(DIVERGENCE, reference, current, limits, column)


def distance(p: Floats, q: Floats) -> float:
    """Distance of two mixes: the root of the Jensen-Shannon divergence in nats; shares may be zero.

    >>> distance(np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    0.0
    """
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return float(np.sqrt(max(divergence, 0.0)))


def _relative_entropy(p: Floats, q: Floats) -> float:
    there = p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())


DIVERGENCE = root_divergence(NAME, distance, lambda value: {PLAIN_RULE: value >= 0.1})
