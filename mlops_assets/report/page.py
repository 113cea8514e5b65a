"""Turns what a page says into one HTML file that needs nothing else: no network, no script, no font of others.

Column names and texts are hostile input: everything is escaped, and the page forbids itself any request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mlops_assets.report import words

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Fact:
    """One line of a page's head."""

    name: str
    value: str
    note: str = ""


def render(template: str, page: Any, filters: Mapping[str, Callable[..., Any]]) -> str:
    """The page as HTML; `filters` are those that only this page has."""
    environment = _environment().overlay()
    environment.filters = {**environment.filters, **filters}
    return environment.get_template(template).render(page=page)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "words": lambda verdict: words.VERDICTS[verdict],
        "number": words.number,
        "percent": words.percent,
        "times": words.times,
        "probability": words.probability,
        "count": words.count,
        "rows": lambda rows: f"{rows:,}",
        "statistic": words.statistic,
    }
    return environment
