"""Every statistic by name, each as (reference, current, limits) -> result.

For what has to hold for all of them alike: the conformance tests, and the comparison of their power in
`benchmarks/drift_power.py`. Which of them act on a window is decided in `window`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mlops_assets.drift import (
    anderson_darling,
    chi_squared,
    cramer_von_mises,
    energy,
    hellinger,
    jensen_shannon,
    kolmogorov_smirnov,
    psi,
    unseen,
    wasserstein,
)
from mlops_assets.drift.columns import Floats
from mlops_assets.drift.frozen_bins import Divergence, judge_counts
from mlops_assets.drift.result import DriftResult, Limits

Numeric = Callable[[Floats, Floats, Limits], DriftResult]
Categorical = Callable[[Mapping[str, int], Mapping[str, int], Limits], DriftResult]

NUMERIC: Mapping[str, Numeric] = {
    kolmogorov_smirnov.NAME: kolmogorov_smirnov.kolmogorov_smirnov,
    psi.NAME: psi.psi,
    wasserstein.NAME: wasserstein.wasserstein,
    jensen_shannon.NAME: jensen_shannon.jensen_shannon,
    hellinger.NAME: hellinger.hellinger,
    energy.NAME: energy.energy,
    cramer_von_mises.NAME: cramer_von_mises.cramer_von_mises,
    anderson_darling.NAME: anderson_darling.anderson_darling,
}


def _over_categories(divergence: Divergence) -> Categorical:
    def compare(reference: Mapping[str, int], current: Mapping[str, int], limits: Limits) -> DriftResult:
        before, now = chi_squared.align(reference, current)
        return judge_counts(divergence, before, now, limits, "")

    return compare


CATEGORICAL: Mapping[str, Categorical] = {
    chi_squared.NAME: chi_squared.chi_squared,
    psi.NAME: _over_categories(psi.DIVERGENCE),
    jensen_shannon.NAME: _over_categories(jensen_shannon.DIVERGENCE),
    hellinger.NAME: _over_categories(hellinger.DIVERGENCE),
    unseen.NAME: unseen.unseen,
}
