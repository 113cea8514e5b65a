"""Vector drawings as markup: elements whose every value is escaped, and the geometry of a plotting area.

Colours are CSS classes, so that a drawing follows the page into light or dark. What is plotted is `plots`'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape


def element(name: str, *children: str, **attributes: str | float) -> Markup:
    """One element; `class_` and `stroke_width` become class and stroke-width, text is escaped.

    >>> element("text", "<b>", x=1.23456, class_="tick")
    Markup('<text x="1.23" class="tick">&lt;b&gt;</text>')
    """
    shown = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), round(v, 2) if isinstance(v, float) else v)
        for key, v in attributes.items()
    )
    inner = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), shown, inner)


def drawing(width: float, height: float, title: str, *children: str, class_: str = "") -> Markup:
    """A whole drawing that scales with the page; `title` is what a screen reader says."""
    box = f"0 0 {width:g} {height:g}"
    return element("svg", *children, viewBox=box, class_=f"plot {class_}".strip(), role="img", aria_label=title)


def hint(text: str) -> Markup:
    """What is shown while the pointer rests on an element."""
    return element("title", text)


def path(points: Sequence[tuple[float, float]], class_: str, *, closed_at: float | None = None) -> Markup:
    """A line through points, filled down to `closed_at` (pixels) where that is given."""
    drawn = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    if closed_at is not None:
        drawn += f"L{points[-1][0]:.1f} {closed_at:.1f}L{points[0][0]:.1f} {closed_at:.1f}Z"
    return element("path", d=drawn, class_=class_)


@dataclass(frozen=True)
class Panel:
    """A plotting area: where the data ranges `x` and `y` lie within a drawing of `width` by `height` pixels."""

    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]
    left: float = 36.0
    right: float = 8.0
    top: float = 8.0
    bottom: float = 20.0

    @property
    def floor(self) -> float:
        """The lower edge of the area, in pixels."""
        return self.height - self.bottom

    def across(self, value: float) -> float:
        """Pixels from the left of a value on the x axis."""
        low, high = self.x
        return self.left + (value - low) / ((high - low) or 1.0) * (self.width - self.left - self.right)

    def down(self, value: float) -> float:
        """Pixels from the top of a value on the y axis."""
        low, high = self.y
        return self.floor - (value - low) / ((high - low) or 1.0) * (self.floor - self.top)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within a range, at most about `most` of them.

    >>> ticks(0, 0.37, 4), ticks(3, 97, 4)
    ([0.0, 0.1, 0.2, 0.3], [25.0, 50.0, 75.0])
    """
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]
