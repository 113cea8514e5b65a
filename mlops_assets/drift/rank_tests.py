"""Judges two-sample tests that rank the pooled rows: each says its own figure, the rest is common to all.

Their effect is the Kolmogorov-Smirnov distance, since their own statistics grow with the sample sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mlops_assets.drift import kolmogorov_smirnov as ks
from mlops_assets.drift.cells import Sample
from mlops_assets.drift.columns import Floats
from mlops_assets.drift.result import DriftResult, Figures, Limits, judged


@dataclass(frozen=True)
class RankTest:
    """A test and how it is told of.

    Attributes:
        name: of the statistic.
        method: how the p-value is computed.
        plain_rule: what the field says; true at p < 0.05.
        measure: (reference, current) -> (statistic, p-value); two rows or more on either side.
    """

    name: str
    method: str
    plain_rule: str
    measure: Callable[[Floats, Floats], tuple[float, float]]


def judge(test: RankTest, reference: Floats, current: Floats, limits: Limits, column: str) -> DriftResult:
    """Compare two numeric samples without missing values, in any order."""

    def figures() -> Figures:
        statistic, p_value = test.measure(reference, current)
        effect = ks.distance(Sample(np.sort(reference)), current)
        return Figures(statistic, p_value, effect, test.method, {test.plain_rule: p_value < 0.05})

    limits = replace(limits, min_rows=max(limits.min_rows, 2))  # one row has no statistic
    return judged(test.name, column, len(reference), len(current), limits, figures)
