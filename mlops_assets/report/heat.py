"""Heat maps: named lines over moments, one coloured cell each, as the pages draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlops_assets.report.timeline import Timeline
from mlops_assets.report.words import times


@dataclass(frozen=True)
class Cell:
    """One moment of one column: `level` is its colour, h0 (not judged) to h5."""

    level: str
    hint: str
    text: str = ""


@dataclass(frozen=True)
class Row:
    """One line of a heat map."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Heat:
    """A heat map: lines over moments."""

    note: str
    labels: tuple[str, ...]
    rows: tuple[Row, ...]


def strength_rows(timeline: Timeline, columns: Sequence[str] | None = None) -> tuple[Row, ...]:
    """The strength of each column's change at each moment; all columns, strongest on top, unless some are named."""
    if columns is None:
        most: dict[str, float] = {}
        for moment in timeline.moments:
            for name, value in moment.strengths.items():
                most[name] = max(most.get(name, 0.0), value)
        columns = sorted(most, key=lambda name: (-most[name], name))
    return tuple(Row(n, tuple(_cell(m.label, m.strengths.get(n)) for m in timeline.moments)) for n in columns)


def _cell(label: str, value: float | None) -> Cell:
    if value is None:
        return Cell("h0", f"{label}: not judged")
    level = 1 + sum(value >= step for step in (0.5, 1, 2, 4))
    return Cell(f"h{level}", f"{label}: {times(value)} the limit")
