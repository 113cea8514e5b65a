"""Passes over a million values, compiled: what makes them take milliseconds.

Imported only where samples are large, since loading and compiling cost more than small samples do.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from mlops_assets.drift.columns import Counts, Floats

_BLOCK = 256  # values whose cells stay in the processor's nearest cache


@numba.njit(cache=True, nogil=True)
def locate(
    edges: Floats,
    starts: npt.NDArray[np.int32],
    low: float,
    scale: float,
    steps: int,
    values: Floats,
    found: npt.NDArray[np.uint16],
    counts: Counts,
) -> None:
    """Write how many edges are below each value to `found`, and how many values share each number to `counts`.

    The search starts at the first edge in a value's bucket. A block of values takes each step together, by a
    comparison's outcome instead of a branch, so that the processor can do many at once.
    """
    last = float(len(starts) - 1)
    cells = np.empty(_BLOCK, np.int64)
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        for k in range(len(block)):
            cells[k] = starts[int(min(max((block[k] - low) * scale, 0.0), last))]
        step = (1 << steps) >> 1
        while step:
            for k in range(len(block)):
                cells[k] += step if edges[cells[k] + step - 1] < block[k] else 0
            step >>= 1
        for k in range(len(block)):
            found[start + k] = cells[k]
            counts[cells[k]] += 1


@numba.njit(cache=True, nogil=True)
def select(values: Floats, found: npt.NDArray[np.uint16], wanted: npt.NDArray[np.bool_], rows: int) -> Floats:
    """The values, `rows` in all, whose cell is wanted."""
    selected = np.empty(rows + 1)  # a value that is not wanted is overwritten by the next
    at = 0
    for row in range(len(values)):
        selected[at] = values[row]
        at += wanted[found[row]]
    return selected[:rows]


@numba.njit(cache=True, nogil=True)
def merge_integral(first: Floats, second: Floats, power: int) -> float:
    """Integral of |F - G|^power over the line, for two sorted, non-empty samples."""
    n, m = len(first), len(second)
    i = j = 0
    total = 0.0
    at = min(first[0], second[0])
    while i < n or j < m:
        value = first[i] if j == m or (i < n and first[i] <= second[j]) else second[j]
        height = abs(i / n - j / m)
        total += (height if power == 1 else height * height) * (value - at)
        at = value
        if j == m or (i < n and first[i] <= second[j]):
            i += 1
        else:
            j += 1
    return total
