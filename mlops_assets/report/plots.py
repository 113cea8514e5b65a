"""The pictures of the reports, each a function of figures alone.

Small plots are drawn at the width of a card, so that their text keeps its size on a phone; wide ones scroll.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from mlops_assets.report.shapes import Band, Bar, Histogram, Mix
from mlops_assets.report.svg import Panel, drawing, element, hint, path, ticks
from mlops_assets.report.words import count, number, percent, times

CARD, WIDE = 320.0, 940.0
PALETTE = 8  # colours in the style sheet: s0 to s7
_LETTER = 6.0  # pixels that a letter of a tick takes, about


def distribution(shape: Histogram, title: str) -> Markup:
    """Reference as a grey area, current as a line above it."""
    highest = max(*shape.before, *shape.now, 1e-9)
    panel = Panel(CARD, 150, (shape.edges[0], shape.edges[-1]), (0, highest * 1.06))
    cells = list(zip(shape.edges, shape.edges[1:], shape.before, shape.now, strict=False))
    strips = [
        element(
            "rect",
            hint(f"{number(low)} to {number(high)}: {percent(before)} → {percent(now)}"),
            x=panel.across(low), y=panel.top, width=panel.across(high) - panel.across(low),
            height=panel.floor - panel.top, class_="strip",
        )
        for low, high, before, now in cells
    ]  # fmt: skip
    return drawing(
        panel.width, panel.height, title,
        *_share_axis(panel), *_number_axis(panel),
        path(_steps(panel, shape.edges, shape.before), "before-area", closed_at=panel.floor),
        path(_steps(panel, shape.edges, shape.now), "now-area", closed_at=panel.floor),
        path(_steps(panel, shape.edges, shape.now), "now-line"),
        *strips,
    )  # fmt: skip


def mix(shape: Mix, title: str) -> Markup:
    """Two bars per category, reference above current; a category that is new is marked."""
    bars = [*shape.bars]
    if shape.rest is not None:
        bars.append(Bar(f"{shape.others:,} others", shape.rest.before, shape.rest.now))
    row, left, right = 25.0, 106.0, 84.0
    largest = max(max(bar.before, bar.now) for bar in bars) or 1.0
    panel = Panel(CARD, row * len(bars) + 4, (0, largest), (0, 1), left=left, right=right, top=2, bottom=2)
    drawn: list[Markup] = []
    for place, bar in enumerate(bars):
        top = panel.top + place * row
        new = bar.before == 0 and bar.now > 0
        drawn += [
            element("text", hint(bar.name), _short(bar.name, 17), x=left - 6, y=top + 14, class_="name end"),
            element(
                "rect",
                x=left,
                y=top + 3,
                width=max(panel.across(bar.before) - left, 0.5),
                height=8,
                rx=1,
                class_="before-bar",
            ),
            element(
                "rect",
                x=left,
                y=top + 12,
                width=max(panel.across(bar.now) - left, 0.5),
                height=8,
                rx=1,
                class_="now-bar",
            ),
            element(
                "text",
                f"{percent(bar.before)} → {percent(bar.now)}{' new' if new else ''}",
                x=CARD,
                y=top + 15,
                class_="value end",
            ),
        ]
    return drawing(panel.width, panel.height, title, *drawn)


def sparkline(values: Sequence[float | None], labels: Sequence[str], title: str) -> Markup:
    """Strength over time: a line, with the limit at 1 as a dotted one, points beyond it marked."""
    there = [value for value in values if value is not None]
    panel = Panel(CARD, 54, (0, max(len(values) - 1, 1)), (0, max(1.25, *there)), left=36, top=6, bottom=16)
    known = [(panel.across(i), panel.down(v), v, labels[i]) for i, v in enumerate(values) if v is not None]
    dots = [
        element(
            "circle", hint(f"{label}: {times(v)} the limit"), cx=x, cy=y, r=2.4, class_="over" if v >= 1 else "under"
        )
        for x, y, v, label in known
    ]
    return drawing(
        panel.width, panel.height, title,
        element("line", x1=panel.left, x2=CARD - panel.right, y1=panel.down(1), y2=panel.down(1), class_="limit"),
        element("text", "limit", x=panel.left - 5, y=panel.down(1) + 3, class_="tick end"),
        path([(x, y) for x, y, _, _ in known], "trend"), *dots,
        element("text", labels[0], x=panel.left, y=panel.height - 3, class_="tick"),
        element("text", labels[-1], x=CARD - panel.right, y=panel.height - 3, class_="tick end"),
    )  # fmt: skip


def dumbbells(rows: Sequence[tuple[str, float, float]], title: str) -> Markup:
    """Shares before (open) and now (filled) of each row (name, before, now)."""
    row, left = 22.0, 150.0
    largest = max(max(before, now) for _, before, now in rows) or 1.0
    panel = Panel(WIDE, row * len(rows) + 24, (0, largest), (0, 1), left=left, right=110, top=4)
    drawn = list(_share_axis_below(panel))
    for place, (name, before, now) in enumerate(rows):
        y = panel.top + place * row + row / 2
        drawn += [
            element("text", hint(name), _short(name, 24), x=left - 10, y=y + 4, class_="name end"),
            element("line", x1=panel.across(before), x2=panel.across(now), y1=y, y2=y, class_="bond"),
            element("circle", cx=panel.across(before), cy=y, r=4, class_="before-dot"),
            element("circle", cx=panel.across(now), cy=y, r=4.5, class_="now-dot"),
            element("text", f"{percent(before)} → {percent(now)}", x=WIDE, y=y + 4, class_="value end"),
        ]
    return drawing(panel.width, panel.height, title, *drawn, class_="wide")


def stacked(days: Sequence[str], parts: Mapping[str, Sequence[float]], title: str, unit: str = "row") -> Markup:
    """Rows per day, stacked by part; parts take the colours s0, s1 ... in their order."""
    totals = [sum(values) for values in zip(*parts.values(), strict=True)]
    panel = _over_days(days, max(totals, default=0.0))
    width = _bar_width(panel, len(days))
    drawn: list[Markup] = [*_count_axis(panel), *_day_axis(panel, days)]
    for place, day in enumerate(days):
        reached = 0.0
        for colour, (name, values) in enumerate(parts.items()):
            if values[place]:
                top = panel.down(reached + values[place])
                drawn.append(
                    element(
                        "rect", hint(f"{day}: {count(round(values[place]), unit)} {name}"),
                        x=panel.across(place) - width / 2, y=top, width=width, height=panel.down(reached) - top,
                        class_=f"s{colour % PALETTE}",
                    )
                )  # fmt: skip
            reached += values[place]
    return drawing(panel.width, panel.height, title, *drawn, class_="wide")


def shares(days: Sequence[str], parts: Mapping[str, Sequence[float]], title: str) -> Markup:
    """The same as shares of each day, so that a changing mix is not hidden by a changing volume."""
    totals = [sum(values) or 1.0 for values in zip(*parts.values(), strict=True)]
    scaled = {name: [v / total for v, total in zip(values, totals, strict=True)] for name, values in parts.items()}
    panel = _over_days(days, 1.0)
    width = _bar_width(panel, len(days), gap=0.0)
    drawn: list[Markup] = [*_share_axis(panel), *_day_axis(panel, days)]
    for place, day in enumerate(days):
        reached = 0.0
        for colour, (name, values) in enumerate(scaled.items()):
            if values[place]:
                top = panel.down(reached + values[place])
                drawn.append(
                    element(
                        "rect", hint(f"{day}: {percent(values[place])} {name}"),
                        x=panel.across(place) - width / 2, y=top, width=width + 0.3, height=panel.down(reached) - top,
                        class_=f"s{colour % PALETTE}",
                    )
                )  # fmt: skip
            reached += values[place]
    return drawing(panel.width, panel.height, title, *drawn, class_="wide")


def band(
    days: Sequence[str], values: Sequence[Band | None], title: str, unit: str = "", *, top: float | None = None
) -> Markup:
    """A line over the days with a band around it; days without a figure leave a gap."""
    known = [value for value in values if value is not None]
    highest = top if top is not None else max((value.high for value in known), default=1.0) * 1.05
    panel = _over_days(days, highest)
    drawn: list[Markup] = [*_count_axis(panel), *_day_axis(panel, days)]
    for stretch in _stretches(values):
        places = [(panel.across(place), value) for place, value in stretch]
        outline = [(x, panel.down(v.high)) for x, v in places] + [(x, panel.down(v.low)) for x, v in reversed(places)]
        drawn += [path(outline, "band"), path([(x, panel.down(v.middle)) for x, v in places], "now-line")]
    drawn += [
        element(
            "circle", hint(f"{day}: {number(v.middle)}{unit} ({number(v.low)} to {number(v.high)})"),
            cx=panel.across(place), cy=panel.down(v.middle), r=2.4, class_="under",
        )
        for place, (day, v) in enumerate(zip(days, values, strict=True)) if v is not None
    ]  # fmt: skip
    return drawing(panel.width, panel.height, title, *drawn, class_="wide")


def bars(rows: Sequence[tuple[str, int]], title: str) -> Markup:
    """Counts of a few named things, largest first as given."""
    row, left = 24.0, 130.0
    panel = Panel(
        CARD, row * len(rows) + 4, (0, max(n for _, n in rows) or 1), (0, 1), left=left, right=46, top=2, bottom=2
    )
    drawn: list[Markup] = []
    for place, (name, n) in enumerate(rows):
        top = panel.top + place * row
        drawn += [
            element("text", hint(name), _short(name, 21), x=left - 6, y=top + 15, class_="name end"),
            element(
                "rect", x=left, y=top + 5, width=max(panel.across(n) - left, 1.0), height=13, rx=1.5, class_="now-bar"
            ),
            element("text", f"{n:,}", x=max(panel.across(n), left + 1) + 5, y=top + 15, class_="value"),
        ]
    return drawing(panel.width, panel.height, title, *drawn)


def _steps(panel: Panel, edges: Sequence[float], heights: Sequence[float]) -> list[tuple[float, float]]:
    corners = []
    for low, high, height in zip(edges, edges[1:], heights, strict=False):
        corners += [(panel.across(low), panel.down(height)), (panel.across(high), panel.down(height))]
    return corners


def _share_axis(panel: Panel) -> list[Markup]:
    return _axis(panel, ticks(*panel.y, 4), percent)


def _count_axis(panel: Panel) -> list[Markup]:
    return _axis(panel, ticks(*panel.y, 4), number)


def _axis(panel: Panel, at: Sequence[float], shown: Callable[[float], str]) -> list[Markup]:
    lines = []
    for value in at:
        y = panel.down(value)
        lines.append(element("line", x1=panel.left, x2=panel.width - panel.right, y1=y, y2=y, class_="grid"))
        lines.append(element("text", shown(value), x=panel.left - 5, y=y + 3, class_="tick end"))
    return lines


def _number_axis(panel: Panel) -> list[Markup]:
    return [
        element("text", number(value), x=panel.across(value), y=panel.height - 5, class_="tick middle")
        for value in ticks(*panel.x, 5)
    ]


def _share_axis_below(panel: Panel) -> list[Markup]:
    drawn = []
    for value in ticks(*panel.x, 5):
        x = panel.across(value)
        drawn.append(element("line", x1=x, x2=x, y1=panel.top, y2=panel.floor, class_="grid"))
        drawn.append(element("text", percent(value), x=x, y=panel.height - 4, class_="tick middle"))
    return drawn


def _over_days(days: Sequence[str], highest: float) -> Panel:
    edge = 0.5 if len(days) > 1 else 1.0
    return Panel(WIDE, 190, (-edge, max(len(days) - 1, 0) + edge), (0, highest or 1.0), left=44)


def _bar_width(panel: Panel, days: int, gap: float = 0.18) -> float:
    return min((panel.width - panel.left - panel.right) / max(days, 1) * (1 - gap), 40.0)


def _day_axis(panel: Panel, days: Sequence[str]) -> list[Markup]:
    """As many dates as fit, the first among them."""
    room = int((panel.width - panel.left) / (_LETTER * 12))
    every = max(-(-len(days) // max(room, 1)), 1)
    return [
        element("text", day, x=panel.across(place), y=panel.height - 5, class_="tick middle")
        for place, day in enumerate(days)
        if place % every == 0
    ]


def _stretches(values: Sequence[Band | None]) -> list[list[tuple[int, Band]]]:
    """Runs of days that have a figure."""
    runs: list[list[tuple[int, Band]]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((place, value))
    return [run for run in runs if run]


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
