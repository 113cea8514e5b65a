"""Integrals of the gap between two empirical distribution functions, and their law when nothing has changed.

Wasserstein and energy distance are both of this kind. Their law depends on the data's own distribution, so it
is simulated: seeded Brownian bridges over the pooled quantiles, at a cost free of the sample sizes.

Source: del Barrio, Gine, Matran, "Central limit theorems for the Wasserstein distance between the empirical
and the true distributions" (1999).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from mlops_assets.drift.columns import Floats
from mlops_assets.drift.result import DriftInputError

BRIDGES = 999

_GRID = 128
_SEED = 0


@dataclass(frozen=True)
class Gap:
    """The difference of two distribution functions, constant over steps of given widths."""

    heights: Floats
    widths: Floats

    def integral(self, power: int) -> float:
        """Integral of |gap|^power over the line."""
        return float((np.abs(self.heights) ** power * self.widths).sum())


def gap(reference: Floats, current: Floats, column: str = "") -> Gap:
    """Gap between two sorted samples.

    Raises:
        DriftInputError: a value is infinite, so the integral is.
    """
    if not (np.isfinite(reference[[0, -1]]).all() and np.isfinite(current[[0, -1]]).all()):
        raise DriftInputError(f"column {column}: holds infinite values, whose distance from the rest is infinite")
    points = np.sort(np.concatenate([reference, current]))
    starts = points[:-1]
    before = np.searchsorted(reference, starts, side="right") / len(reference)
    now = np.searchsorted(current, starts, side="right") / len(current)
    return Gap(before - now, np.diff(points))


def significance(observed: float, power: int, reference: Floats, current: Floats) -> float:
    """P(integral of |gap|^power >= observed) when both sorted samples come from their pool."""
    pooled = np.sort(np.concatenate([reference, current]))
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
