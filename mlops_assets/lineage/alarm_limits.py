"""The limits of the monitors that page: in force for a week or a version, kept with the days they rest on.

Wiring only: how a limit follows from the budget and the quiet days is `mlops_assets.monitoring.alarm_budget`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.lineage.loop import Loop
from mlops_assets.monitoring.catalogue import LOOKS
from mlops_assets.monitoring.windows import latest_windows, read_window, read_windows, write_window
from mlops_assets.storage import digest_json, locked, read_json, write_json
from mlops_assets.verdict import Verdict

if TYPE_CHECKING:
    from mlops_assets.monitoring.alarm_budget import Ground
    from mlops_assets.monitoring.monitors import MonitorResult


@dataclass(frozen=True)
class Limits:
    """The score from which each paging monitor pages, and the document that says why."""

    scores: Mapping[str, float]
    evidence: Path | None

    def __getitem__(self, monitor: str) -> float:
        return self.scores[monitor]


def day_of(loop: Loop) -> str:
    """The day that a look speaks of."""
    from mlops_assets.monitoring import look

    return f"{look.day_of(loop.now()):%Y-%m-%d}"


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
    from mlops_assets.monitoring.alarm_budget import Ground, still_hold
    from mlops_assets.monitoring.look import RECENT_DAYS

    answered = [day["reference_version"] for day in latest_windows(loop.home.windows, "drift", RECENT_DAYS)]
    version = next((number for number in reversed(answered) if number is not None), None)
    ground, newest = Ground(loop.now(), version, loop.spec.monitors.pages_per_quarter), _newest_limits(loop)
    if newest is None or not still_hold(Ground.of(read_json(newest)), ground):
        _set_limits(loop, ground)
    return known_limits(loop)


def _set_limits(loop: Loop, ground: "Ground") -> None:
    """Set the limits by the quiet days so far, and keep them with these and what they would have paged on them."""
    from mlops_assets.monitoring.alarm_budget import limits_within_budget, replay

    days = _quiet_days(loop)
    history = [day["scores"] for day in days]
    limits = limits_within_budget(history, LOOKS, ground.pages_per_quarter, seed=loop.spec.training.seed)
    document = {
        **asdict(ground),
        "quiet_days": [day["day"] for day in days],
        "history_digest": digest_json(history),
        "limits": limits,
        "replay": replay(history, limits),
    }
    name = f"{ground.at:%Y%m%dT%H%M%S}-v{ground.version or 0}.json"
    write_json(loop.home.evidence / "alarm_limits" / name, document)


def _quiet_days(loop: Loop) -> list[dict[str, Any]]:
    """What the monitors found on each day that was judged and did not drift.

    A day without a verdict, too few rows among the reasons, is left out: history can only raise a limit, so a day
    that is not known to be quiet must not have a say.
    """
    verdicts = {day["day"]: day["verdict"] for day in read_windows(loop.home.windows, "drift")}
    return [day for day in read_windows(loop.home.windows, "monitors") if verdicts.get(day["day"]) == Verdict.PASS]


def _newest_limits(loop: Loop) -> Path | None:
    return max((loop.home.evidence / "alarm_limits").glob("*.json"), default=None)


def may_wake(result: "MonitorResult") -> bool:
    """Whether a result may wake somebody."""
    return result.name in LOOKS and result.verdict is Verdict.FAIL


def keep_look(loop: Loop, found: Mapping[str, "MonitorResult"]) -> None:
    """Keep what a look found, by check (``asset:monitor``), with the day that it speaks of.

    Later limits learn from the day's highest score of each monitor, if the day proves quiet; a replay looks again
    at what was looked at.
    """
    from mlops_assets.monitoring.alarm_budget import highest

    day, windows = datetime.fromisoformat(day_of(loop)), loop.home.windows
    said = {
        check: {"verdict": result.verdict, "score": result.score, "pages": may_wake(result)}
        for check, result in found.items()
    }
    with locked(windows / "monitors" / ".lock"):  # files that arrive are looked at beside production
        before = read_window(windows, "monitors", day) or {"scores": {}}
        document = {
            "scores": highest(before["scores"], {result.name: result.score for result in found.values()}),
            "looks": [*before.get("looks", []), {"at": loop.now(), "decided": datetime.now(UTC), "found": said}],
        }
        write_window(windows, "monitors", day, document)
