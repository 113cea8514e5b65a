"""Integrals of the gap between two empirical distribution functions, their law when nothing has changed, and the
judgement of distances that are made of them.

Wasserstein and energy distance are both of this kind. Their law depends on the data's own distribution, so it
is simulated: seeded Brownian bridges over the pooled quantiles, at a cost free of the sample sizes.

Source: del Barrio, Gine, Matran, "Central limit theorems for the Wasserstein distance between the empirical
and the true distributions" (1999).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from mlops_assets.drift.cells import COMPILED_ROWS
from mlops_assets.drift.columns import Floats
from mlops_assets.drift.result import DriftInputError, DriftResult, Figures, Limits, judged

BRIDGES = 999

_GRID = 128
_SEED = 0
_THINNED = 16_384  # sorted values that stand for the pool; the grid needs no more


@dataclass(frozen=True)
class GapDistance:
    """A distance made of the integral of |F - G|^power.

    Attributes:
        name: of the statistic.
        power: 1 or 2.
        from_integral: (integral, unit) -> distance of the column measured in that unit.
        plain_rule: what the field says; true from an effect of 0.1 on.
    """

    name: str
    power: int
    from_integral: Callable[[float, float], float]
    plain_rule: str


def judge(gap: GapDistance, reference: Floats, current: Floats, limits: Limits, column: str) -> DriftResult:
    """Compare two sorted samples without missing values.

    The statistic is in the column's own unit, the effect in standard deviations of the reference; a constant
    one is left in its unit.

    Raises:
        DriftInputError: a value is infinite.
    """

    def figures() -> Figures:
        area = integral(reference, current, gap.power, column)
        effect = gap.from_integral(area, _deviation(reference) or 1.0)
        return Figures(
            statistic=gap.from_integral(area, 1.0),
            p_value=significance(area, gap.power, reference, current),
            effect=effect,
            method=f"{BRIDGES} Brownian bridges",
            plain_rule={gap.plain_rule: effect >= 0.1},
        )

    return judged(gap.name, column, len(reference), len(current), limits, figures)


def _deviation(values: Floats) -> float:
    """Standard deviation of sorted values, whose squares may be beyond float64."""
    largest = float(np.abs(values[[0, -1]]).max()) or 1.0
    return float((values / largest).std()) * largest


def integral(reference: Floats, current: Floats, power: int, column: str = "") -> float:
    """Integral of |F - G|^power of two sorted samples; power 1 or 2.

    Raises:
        DriftInputError: a value is infinite, so the integral is.
    """
    if not (np.isfinite(reference[[0, -1]]).all() and np.isfinite(current[[0, -1]]).all()):
        raise DriftInputError(f"column {column}: holds infinite values, whose distance from the rest is infinite")
    if len(current) >= COMPILED_ROWS:
        from mlops_assets.drift.compiled import merge_integral  # loads a compiler

        return float(merge_integral(reference, current, power))
    points = np.sort(np.concatenate([reference, current]))
    starts = points[:-1]
    before = np.searchsorted(reference, starts, side="right") / len(reference)
    now = np.searchsorted(current, starts, side="right") / len(current)
    return float((np.abs(before - now) ** power * np.diff(points)).sum())


def significance(observed: float, power: int, reference: Floats, current: Floats) -> float:
    """P(integral of |gap|^power >= observed) when both sorted samples come from their pool."""
    every = max(1, (len(reference) + len(current)) // _THINNED)
    pooled = np.sort(np.concatenate([reference[::every], current[::every]]))
    grid = pooled[np.linspace(0, len(pooled) - 1, _GRID).astype(int)]
    widths = np.diff(grid)
    levels = np.searchsorted(pooled, grid[:-1], side="right") / len(pooled)
    steps = np.diff(levels, prepend=0.0, append=1.0)
    walks = np.cumsum(_noise() * np.sqrt(steps), axis=1)
    bridges = walks[:, :-1] - walks[:, -1:] * levels
    noise = np.sqrt(1 / len(reference) + 1 / len(current))
    simulated = (np.abs(noise * bridges) ** power) @ widths
    return float((1 + (simulated >= observed).sum()) / (1 + BRIDGES))


@cache
def _noise() -> Floats:
    """The same draws for every column: they cost more than all the rest."""
    return np.random.default_rng(_SEED).normal(size=(BRIDGES, _GRID))
