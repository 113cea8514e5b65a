"""The limits of the monitors that page: in force for a week or a version, kept with the days they rest on.

Wiring only: how a limit follows from the budget and the quiet days is `mlops_assets.monitoring.alarm_budget`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mlops_assets.lineage.loop import Loop
from mlops_assets.monitoring.catalogue import LOOKS
from mlops_assets.monitoring.windows import latest_windows, read_window, read_windows, write_window
from mlops_assets.storage import digest_json, read_json, write_json
from mlops_assets.verdict import Verdict

LIMITS_VALID = timedelta(days=7)
_RECENT = 10  # days that are searched for the version that answers


@dataclass(frozen=True)
class Limits:
    """The score from which each paging monitor pages, and the document that says why."""

    scores: Mapping[str, float]
    evidence: Path | None

    def __getitem__(self, monitor: str) -> float:
        return self.scores[monitor]


def day_of(loop: Loop) -> str:
    """The day that a look speaks of: until an hour after midnight the day before."""
    return f"{loop.now() - timedelta(hours=1):%Y-%m-%d}"


def known_limits(loop: Loop) -> Limits:
    """The limits in force; the analytic ones before the first look at production."""
    from mlops_assets.monitoring.alarm_budget import limits_within_budget

    newest = _newest_limits(loop)
    if newest is not None:
        return Limits({name: limit["score"] for name, limit in read_json(newest)["limits"].items()}, newest)
    analytic = limits_within_budget([], LOOKS, loop.spec.monitors.pages_per_quarter)
    return Limits({name: limit.score for name, limit in analytic.items()}, None)


def refreshed_limits(loop: Loop) -> Limits:
    """The limits in force, set anew for a new version, a new budget, and every week."""
    answered = [day["reference_version"] for day in latest_windows(loop.home.windows, "drift", _RECENT)]
    version = next((number for number in reversed(answered) if number is not None), 0)
    newest = _newest_limits(loop)
    if newest is None or not _still_valid(loop, read_json(newest), version):
        _set_limits(loop, version)
    return known_limits(loop)


def _set_limits(loop: Loop, version: int) -> None:
    """Set the limits by the quiet days so far, and keep them with these and what they would have paged on them."""
    from mlops_assets.monitoring.alarm_budget import limits_within_budget, replay

    days = [day for day in read_windows(loop.home.windows, "monitors") if day["quiet"]]
    history, budget = [day["scores"] for day in days], loop.spec.monitors.pages_per_quarter
    limits = limits_within_budget(history, LOOKS, budget, seed=loop.spec.training.seed)
    document = {
        "at": loop.now(),
        "version": version,
        "pages_per_quarter": budget,
        "quiet_days": [day["day"] for day in days],
        "history_digest": digest_json(history),
        "limits": limits,
        "replay": replay(history, limits),
    }
    write_json(loop.home.evidence / "alarm_limits" / f"{loop.now():%Y%m%dT%H%M%S}-v{version}.json", document)


def _still_valid(loop: Loop, document: Mapping[str, Any], version: int) -> bool:
    young = loop.now() - datetime.fromisoformat(document["at"]) < LIMITS_VALID
    budget = loop.spec.monitors.pages_per_quarter
    return young and document["version"] == version and document["pages_per_quarter"] == budget


def _newest_limits(loop: Loop) -> Path | None:
    return max((loop.home.evidence / "alarm_limits").glob("*.json"), default=None)


def keep_scores(loop: Loop, results: Mapping[str, Any]) -> None:
    """Keep the day's highest score of each monitor, and whether it was a quiet day: what later limits learn from."""
    day = datetime.fromisoformat(day_of(loop))
    before = read_window(loop.home.windows, "monitors", day) or {"scores": {}}
    scores = {name: result.score for name, result in results.items() if result.score is not None}
    highest = {name: max(found, before["scores"].get(name, found)) for name, found in scores.items()}
    drift = read_window(loop.home.windows, "drift", day) or {"verdict": Verdict.INSUFFICIENT_DATA}
    quiet = drift["verdict"] != Verdict.FAIL
    write_window(loop.home.windows, "monitors", day, {"scores": before["scores"] | highest, "quiet": quiet})
