"""Many frozen cells of a reference sample, and a window's rows counted in them: one pass, in any order.

The gap between two distribution functions is known exactly at the edges of cells, and inside of one to within
its share, so that a Kolmogorov-Smirnov distance needs no sorted window (see `kolmogorov_smirnov`), and a window
can be counted in parts (see `counts`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mlops_assets.drift.columns import Counts, Floats
from mlops_assets.drift.frozen_bins import freeze_edges

GRID = 16_384
# From here on a compiled pass over the rows beats sorting them, even with the time to load it.
COMPILED_ROWS = 100_000

_BUCKETS = 4 * GRID


@dataclass(frozen=True)
class Cells:
    """Cell k holds what is above edge k-1 and at most edge k.

    Attributes:
        edges: inner edges, ascending.
        reached: reference rows that are at most each edge.
        rows: reference rows.
    """

    edges: Floats
    reached: Counts
    rows: int

    def count(self, values: Floats) -> Counts:
        """Rows per cell."""
        return self.locate(values)[0]

    def locate(self, values: Floats) -> tuple[Counts, npt.NDArray[np.uint16]]:
        """Rows per cell, and the cell of each row."""
        counts = np.zeros(len(self.edges) + 1, dtype=np.int64)
        if len(values) < COMPILED_ROWS:
            found = np.searchsorted(self.edges, values, side="left").astype(np.uint16)
            return np.bincount(found, minlength=len(counts)), found
        from mlops_assets.drift.compiled import locate  # loads a compiler

        found = np.empty(len(values), dtype=np.uint16)
        guide = self._guide
        locate(
            guide.edges, guide.starts, guide.low, guide.scale, guide.steps, np.ascontiguousarray(values), found, counts
        )
        return counts, found

    def distance(self, counts: Counts) -> float:
        """Largest gap between the two distribution functions at an edge; 0 when either has no rows."""
        counted = counts.sum()
        if not counted or not self.rows:
            return 0.0
        return float(np.abs(self.reached / self.rows - np.cumsum(counts[:-1]) / counted).max())

    def bounds(self, counts: Counts) -> Floats:
        """What the largest gap inside each cell cannot exceed; 0 in cells of one value, which have no inside."""
        before = np.concatenate([[0], self.reached, [self.rows]]) / self.rows
        now = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
        bounds = np.maximum(np.abs(before[:-1] - now[1:]), np.abs(before[1:] - now[:-1]))
        bounds[1:-1][self.edges[:-1] == np.nextafter(self.edges[1:], -np.inf)] = 0.0
        return bounds

    @cached_property
    def _guide(self) -> _Guide:
        return _guide(self.edges)


@dataclass(frozen=True)
class Sample:
    """A sorted sample, and its cells, which are made when they are first asked for."""

    values: Floats

    @cached_property
    def cells(self) -> Cells:
        """Cells that hold equal shares of the sample."""
        edges = freeze_edges(self.values, GRID) if len(self.values) else self.values
        return Cells(edges, np.searchsorted(self.values, edges, side="right"), len(self.values))


@dataclass(frozen=True)
class _Guide:
    """Where to look for a value among the edges: from starts[bucket of value], so many steps of bisection."""

    edges: Floats
    starts: npt.NDArray[np.int32]
    low: float
    scale: float
    steps: int


def _guide(edges: Floats) -> _Guide:
    """Buckets of equal width between the outer finite edges; the fullest says how many steps all need.

    The bucket of an edge is computed as that of a value is, and rounding keeps the order: an edge in an earlier
    bucket than a value's is below that value.
    """
    finite = edges[np.isfinite(edges)]
    low, high = (float(finite[0]), float(finite[-1])) if len(finite) else (0.0, 1.0)
    with np.errstate(divide="ignore", over="ignore"):
        scale = float(np.float64(_BUCKETS / 2) / (high / 2 - low / 2))  # halves do not overflow
        scale = scale if np.isfinite(scale) else 1.0
        buckets = np.clip((edges - low) * scale, 0, _BUCKETS - 1).astype(np.int32)
    starts = np.searchsorted(buckets, np.arange(_BUCKETS + 1)).astype(np.int32)
    steps = int(np.diff(starts).max()).bit_length()
    return _Guide(np.append(edges, np.full(1 << steps, np.inf)), starts[:-1], low, scale, steps)
