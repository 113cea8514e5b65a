"""A comparison for a terminal and for a machine: one line per column, or the whole as a JSON document."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from mlops_assets.console import plain
from mlops_assets.report.comparison import Comparison
from mlops_assets.report.drift_page import headline, lead
from mlops_assets.report.stories import Story, tell
from mlops_assets.report.words import VERDICTS, probability, times
from mlops_assets.verdict import Verdict

_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INSUFFICIENT_DATA: "yellow", Verdict.ERROR: "magenta"}


def as_table(comparison: Comparison) -> Table:
    """One line per column, what matters most first."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("column", no_wrap=True, max_width=28)
    table.add_column("verdict", no_wrap=True)
    table.add_column("of its limit", justify="right", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("what changed", overflow="fold")
    for story in _stories(comparison):
        table.add_row(
            plain(story.column), Text(VERDICTS[story.verdict], _COLOURS[story.verdict]), times(story.strength),
            probability(story.lead.p_value), plain(story.change),
        )  # fmt: skip
    return table


def not_compared(comparison: Comparison) -> list[Text]:
    """The columns that are not compared as they are, under the reason."""
    reasons: dict[str, list[str]] = {}
    for role in comparison.not_compared:
        reasons.setdefault(role.reason, []).append(role.column)
    return [plain(f"{', '.join(columns)}: {reason}", "dim") for reason, columns in reasons.items()]


def summary(comparison: Comparison) -> list[Text]:
    """The verdict, what it means, and what was compared."""
    before, now = comparison.reference, comparison.current
    stories = _stories(comparison)
    return [
        plain(headline(stories), f"bold {_COLOURS[comparison.drift.verdict]}"),
        plain(lead(stories, comparison.drift, comparison.spec)),
        plain(f"{now.name} ({now.frame.height:,} rows) against {before.name} ({before.frame.height:,} rows)", "dim"),
    ]


def as_document(comparison: Comparison) -> dict[str, Any]:
    """All figures, for a machine; columns in the order of the table."""
    stories = _stories(comparison)
    return {
        "verdict": comparison.drift.verdict,
        "summary": headline(stories),
        "reference": {"name": comparison.reference.name, "rows": comparison.reference.frame.height},
        "current": {"name": comparison.current.name, "rows": comparison.current.frame.height},
        "alpha": comparison.spec.alpha,
        "expected_run": comparison.drift.expected_run,
        "limits": comparison.spec,
        "columns": [
            {
                "column": story.column,
                "verdict": story.verdict,
                "times_limit": story.strength,
                "change": story.change,
                "results": story.results,
            }
            for story in stories
        ],
        "not_compared": [{"column": r.column, "as": r.kind, "reason": r.reason} for r in comparison.not_compared],
    }


def _stories(comparison: Comparison) -> tuple[Story, ...]:
    return tell(comparison.profile, comparison.window, comparison.drift, comparison.spec)
