"""The results of daily windows, one JSON per kind and day: what a later decision reads, and a replay recomputes.

It keeps documents; what a drift or a quality document means is its writer's matter.
"""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

from mlops_assets.storage import read_json, write_json


def window_path(folder: Path, kind: str, day: date | datetime) -> Path:
    """Where the document of one day lies."""
    return folder / kind / f"{day:%Y-%m-%d}.json"


def write_window(folder: Path, kind: str, day: date | datetime, document: dict[str, Any]) -> Path:
    """Keep the document of one day; repeated with the same content it changes nothing."""
    return write_json(window_path(folder, kind, day), {"day": f"{day:%Y-%m-%d}", **document})


def read_window(folder: Path, kind: str, day: date | datetime) -> dict[str, Any] | None:
    """The document of one day, or None."""
    path = window_path(folder, kind, day)
    document: dict[str, Any] | None = read_json(path) if path.exists() else None
    return document


def read_windows(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The documents of a kind, oldest day first."""
    return [read_json(path) for path in sorted((folder / kind).glob("????-??-??.json"))]


def latest_windows(folder: Path, kind: str, count: int) -> list[dict[str, Any]]:
    """The documents of the last `count` days of a kind, oldest first."""
    return [read_json(path) for path in sorted((folder / kind).glob("????-??-??.json"))[-count:]]
