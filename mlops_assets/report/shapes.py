"""What a column looks like on both sides: binned numbers or the mix of categories, as shares.

For the eye: bins are chosen for both sides together, so that both can be seen. The figures that judge come from
the engine's own bins, which are frozen on the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlops_assets.drift.columns import Floats

BINS = 28
_DISCRETE = 10  # so few distinct numbers are drawn one by one
_SHOWN = 8
_TAIL = 0.005
_FARTHEST = np.finfo(float).max / 4  # what lies beyond is drawn there, so that a range is a number, too


@dataclass(frozen=True)
class Histogram:
    """Shares of two samples per bin; the outer bins hold all that lies beyond them as well."""

    edges: tuple[float, ...]
    before: tuple[float, ...]
    now: tuple[float, ...]


@dataclass(frozen=True)
class Bar:
    """One category's share before and now."""

    name: str
    before: float
    now: float


@dataclass(frozen=True)
class Mix:
    """The largest categories, and how many others share the rest."""

    bars: tuple[Bar, ...]
    others: int = 0
    rest: Bar | None = None


@dataclass(frozen=True)
class Band:
    """A figure of one day with what lies around it."""

    low: float
    middle: float
    high: float


Shape = Histogram | Mix


def of_numbers(before: Floats, now: Floats) -> Shape | None:
    """The shape of two samples of numbers; None where neither has a finite value.

    >>> of_numbers(np.array([0.0, 1.0, 1.0, 1.0]), np.array([0.0, 1.0]))
    Mix(bars=(Bar(name='0', before=0.25, now=0.5), Bar(name='1', before=0.75, now=0.5)), others=0, rest=None)
    """
    sides = [values[np.isfinite(values)] for values in (before, now)]
    both = np.concatenate(sides)
    if not len(both):
        return None
    if len(distinct := np.unique(both)) <= _DISCRETE:
        return _one_by_one(sides, distinct)
    edges = _edges(sides)
    shares = [_shares(np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]) for values in sides]
    return Histogram(tuple(edges.tolist()), *(tuple(side.tolist()) for side in shares))


def of_categories(before: Mapping[str, int], now: Mapping[str, int]) -> Mix | None:
    """The mix of two samples of categories, largest first; None where both are empty.

    >>> of_categories({"a": 3, "b": 1}, {"b": 1}).bars[0]
    Bar(name='b', before=0.25, now=1.0)
    """
    totals = [max(sum(counts.values()), 1) for counts in (before, now)]
    bars = [Bar(n, before.get(n, 0) / totals[0], now.get(n, 0) / totals[1]) for n in before.keys() | now.keys()]
    bars.sort(key=lambda bar: (-max(bar.before, bar.now), bar.name))
    if len(bars) <= _SHOWN + 1:
        return Mix(tuple(bars)) if bars else None
    hidden = bars[_SHOWN:]
    rest = Bar("", sum(bar.before for bar in hidden), sum(bar.now for bar in hidden))
    return Mix(tuple(bars[:_SHOWN]), len(hidden), rest)


def _one_by_one(sides: Sequence[Floats], distinct: Floats) -> Mix:
    shares = [[float(np.mean(values == at)) if len(values) else 0.0 for at in distinct] for values in sides]
    return Mix(tuple(Bar(f"{at:g}", b, n) for at, b, n in zip(distinct, *shares, strict=True)))


def _edges(sides: Sequence[Floats]) -> Floats:
    """Equal bins over the bulk of both samples; whole steps where all values are whole."""
    sides = [np.clip(values, -_FARTHEST, _FARTHEST) for values in sides]
    quantiles = [np.quantile(values, (_TAIL, 1 - _TAIL)) for values in sides if len(values)]
    low, high = min(q[0] for q in quantiles), max(q[1] for q in quantiles)
    if low == high:
        low, high = min(v.min() for v in sides if len(v)), max(v.max() for v in sides if len(v))
    if all((values == np.round(values)).all() for values in sides):
        step = max(np.ceil((high - low + 1) / BINS), 1.0)
        return np.arange(np.floor(low), high + step + 0.5, step) - 0.5
    return np.linspace(low, high, BINS + 1)


def _shares(counts: np.ndarray) -> Floats:
    return np.asarray(counts / max(int(counts.sum()), 1), dtype=np.float64)
