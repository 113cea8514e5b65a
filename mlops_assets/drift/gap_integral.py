"""Integrals of the gap between two empirical distribution functions, and their law when nothing has changed.

Wasserstein and energy distance are both of this kind. Their law depends on the data's own distribution, so it
is simulated: seeded Brownian bridges over the pooled quantiles, at a cost free of the sample sizes.

Source: del Barrio, Gine, Matran, "Central limit theorems for the Wasserstein distance between the empirical
and the true distributions" (1999).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from mlops_assets.drift.columns import Floats
from mlops_assets.drift.result import DriftInputError

BRIDGES = 999

_GRID = 128
_SEED = 0
_THINNED = 16_384  # sorted values that stand for the pool; the grid needs no more
# From here on a compiled merge beats look-ups, even with the time to load it.
_MERGED_ROWS = 100_000


def integral(reference: Floats, current: Floats, power: int, column: str = "") -> float:
    """Integral of |F - G|^power of two sorted samples; power 1 or 2.

    Raises:
        DriftInputError: a value is infinite, so the integral is.
    """
    if not (np.isfinite(reference[[0, -1]]).all() and np.isfinite(current[[0, -1]]).all()):
        raise DriftInputError(f"column {column}: holds infinite values, whose distance from the rest is infinite")
    if len(current) >= _MERGED_ROWS:
        from mlops_assets.drift.sorted_merge import merge_integral  # loads a compiler

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
