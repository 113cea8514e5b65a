"""Small plots for an asset's metadata, as markdown images that need no server."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from mlops_assets.monitoring.windows import read_windows

DAYS_SHOWN = 45
_MARGINS = {"left": 0.09, "right": 0.99, "top": 0.88, "bottom": 0.24}  # to have them found takes as long as the rest
_QUIET, _LOUD, _UNKNOWN, _POINT = "#2b8a3e", "#c92a2a", "#adb5bd", "#1c3d5a"


def drift_history(windows: Path, group: str, until: date | datetime) -> str:
    """The largest effect of a group of drift statistics on each day up to `until`; alarmed days are red."""
    shown = _until(read_windows(windows, "drift"), until)
    effects, colours = [], []
    for window in shown:
        found = window["groups"].get(group, {"verdict": "error", "results": []})
        known = [result["effect"] for result in found["results"] if result["effect"] is not None]
        effects.append(max(known, default=0.0))
        colours.append({"pass": _QUIET, "fail": _LOUD}.get(found["verdict"], _UNKNOWN))
    return _bars([window["day"] for window in shown], effects, colours, f"largest {group} effect per day")


def quality_history(windows: Path, until: date | datetime) -> str:
    """Weighted F1 of each day up to `until`: realised, as bars, and with its interval as the confidences expect it."""
    shown = _until(read_windows(windows, "quality"), until)
    values = [window["f1_weighted"] or 0.0 for window in shown]
    colours = [{"pass": _QUIET, "fail": _LOUD}.get(window["verdict"], _UNKNOWN) for window in shown]
    expected = [
        (place, window["estimate"]["f1_low"], window["estimate"]["f1_weighted"], window["estimate"]["f1_high"])
        for place, window in enumerate(shown)
        if window["estimate"]
    ]
    title = "weighted F1 per day: realised (bars), expected from confidences (points)"
    return _bars([window["day"] for window in shown], values, colours, title, expected)


def _until(windows: list[dict[str, Any]], day: date | datetime) -> list[dict[str, Any]]:
    return [window for window in windows if window["day"] <= f"{day:%Y-%m-%d}"][-DAYS_SHOWN:]


def _bars(
    days: Sequence[str],
    values: Sequence[float],
    colours: Sequence[str],
    title: str,
    points: Sequence[tuple[int, float, float, float]] = (),
) -> str:
    """Bars by day, and points (place, low, value, high) over them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 1.9), dpi=90)
    axes = figure.subplots(gridspec_kw=_MARGINS)
    axes.bar(range(len(days)), values, color=colours, width=0.8)
    for place, low, value, high in points:
        axes.plot([place, place], [low, high], color=_POINT, linewidth=1)
        axes.plot(place, value, marker="o", markersize=3, color=_POINT)
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xticks(range(len(days)), [day[5:] for day in days], rotation=60, fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return f"![{title}](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})"
