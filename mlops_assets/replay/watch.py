"""The monitors and the alerts of a policy: every look on record is looked at again, at its own moment.

Limits follow from the policy's own scores, week by week, as they do in the loop (`monitoring.alarm_budget`); what
people would have been told follows from the verdicts (`monitoring.alerts`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from mlops_assets.drift.again import DayAgain, as_document
from mlops_assets.monitoring.alarm_budget import Ground, highest, limits_within_budget, still_hold
from mlops_assets.monitoring.alerts import Finding, OpenAlert, Severity, review
from mlops_assets.monitoring.catalogue import LOOKS
from mlops_assets.monitoring.look import CONFIRMED_DAYS, RECENT_DAYS, Known, day_of, look
from mlops_assets.monitoring.monitors import acts
from mlops_assets.monitoring.traffic import Traffic, count_hours
from mlops_assets.replay.events import Event, Kind
from mlops_assets.replay.history import Found, History, Look
from mlops_assets.replay.known import KnownThen
from mlops_assets.spec import ModelSpec
from mlops_assets.verdict import Verdict

_BY_DRIFT = ("prediction_mix", "feature_shift")


class Alerts:
    """What people are told, look by look, as checks pass and fail."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._latest: dict[str, Finding] = {}
        self._open: list[OpenAlert] = []

    def tell(self, at: datetime, found: Mapping[str, Found], drift: Mapping[str, Verdict]) -> list[Event]:
        """What is told after a look at which these checks and groups of drift had these verdicts."""
        groups = {f"{group}_drift:quiet": Found(verdict, None, pages=False) for group, verdict in drift.items()}
        self._latest |= {check: _finding(check, said) for check, said in {**found, **groups}.items()}
        before = {alert.cause: alert for alert in self._open}
        _, self._open = review(self._model, list(self._latest.values()), self._open, {}, now=at.isoformat())
        return [*_opened(before, self._open), *_over(before, self._open)]


class Watch:
    """The monitors under a policy."""

    def __init__(self, history: History, policy: ModelSpec, drift: Mapping[date, DayAgain], known: KnownThen) -> None:
        self._history, self._policy, self._drift, self._known = history, policy, drift, known
        self._hours = count_hours(history.requests, policy.monitors.max_p99_ms)
        self._scores: dict[date, dict[str, float]] = {}
        self._ground: Ground | None = None
        self._limits = _limits([], policy)
        self._alerts = Alerts(policy.name)
        self.unknown: dict[str, None] = {}  # why a monitor could not be looked at again, in order

    def look(self, recorded: Look) -> list[Event]:
        """What people would have been told after a look."""
        if _is_of_production(recorded):
            self._refresh(recorded.at)
            found = self._production(recorded)
        else:
            found = self._arrival(recorded)
        self._keep(recorded.at, found)
        again = latest(self._drift, recorded.at)
        verdicts = {name: group.verdict for name, group in again.groups.items()} if again else {}
        return self._alerts.tell(recorded.at, found, verdicts)

    def _production(self, recorded: Look) -> dict[str, Found]:
        at, spec = recorded.at, self._policy.monitors
        past = sorted(day for day in self._history.quality if day < at.date())[-RECENT_DAYS:]
        days = [self._known.document(day, at) for day in past]
        answered = [day for day in days if day["reference_version"] is not None]
        version = answered[-1]["reference_version"] if answered else None
        day, again = latest_day(self._drift, at), latest(self._drift, at)
        known = Known(at, answered, self._known.answers_of(version, at), self._drifted(at), Traffic(self._hours, at))
        results = look(known, spec, self._limits)
        if again and again.verdict is None:
            self._cannot(f"drift of {day}: {'; '.join(again.unknown)}")
            results = {name: result for name, result in results.items() if name not in _BY_DRIFT}
        found = {
            check: Found(result.verdict, result.score, pages=name in self._limits and result.verdict is Verdict.FAIL)
            for check in recorded.found
            if (result := results.get(name := _name(check))) is not None
        }
        return found | self._machine(recorded, results["latency"].verdict)

    def _drifted(self, at: datetime) -> list[Mapping[str, Any]]:
        """The documents of the last days as judged again; none where the latest could not be."""
        past = sorted(day for day in self._drift if day < at.date())[-CONFIRMED_DAYS:]
        if not past or self._drift[past[-1]].verdict is None:
            return []
        judged = [day for day in past if self._drift[day].verdict is not None]
        return [as_document(self._history.drift[day], self._drift[day]) for day in judged]

    def _machine(self, recorded: Look, slow: Verdict) -> dict[str, Found]:
        """The processor's verdict as it was, where the policy asks the same of the same answers."""
        check, then = next((item for item in recorded.found.items() if _name(item[0]) == "processor"), ("", None))
        if then is None:
            return {}
        asked, own = self._policy.monitors, self._history.own.monitors
        slow_then = next(found.verdict for name, found in recorded.found.items() if _name(name) == "latency")
        if (asked.max_busy, asked.busy_minutes, slow) == (own.max_busy, own.busy_minutes, slow_then):
            return {check: then}
        self._cannot("processor: samples of the machine are kept for an hour only")
        return {}

    def _arrival(self, recorded: Look) -> dict[str, Found]:
        """Missing values at arrival: the kept score against the policy's limit."""
        if self._policy.monitors.max_missing_share != self._history.own.monitors.max_missing_share:
            self._cannot("missing values at arrival: their score against another share was never computed")
            return {}
        return {check: self._rescored(found) for check, found in recorded.found.items()}

    def _rescored(self, found: Found) -> Found:
        if found.score is None:
            return found
        if acts(found.score, self._limits["missing_values"]) is Verdict.FAIL:
            return replace(found, verdict=Verdict.FAIL, pages=True)
        # Whether it had rows enough to pass is not on record.
        return replace(found, verdict=Verdict.INSUFFICIENT_DATA, pages=False) if found.pages else found

    def _refresh(self, at: datetime) -> None:
        """Set the limits anew where the loop would: for a new version, and every week."""
        past = sorted(day for day in self._history.drift if day < at.date())[-RECENT_DAYS:]
        answered = [self._history.drift[day]["reference_version"] for day in past]
        version = next((number for number in reversed(answered) if number is not None), None)
        ground = Ground(at, version, self._policy.monitors.pages_per_quarter)
        if self._ground is None or not still_hold(self._ground, ground):
            quiet = [self._scores[day] for day in sorted(self._scores) if self._was_quiet(day, at)]
            self._ground, self._limits = ground, _limits(quiet, self._policy)

    def _was_quiet(self, day: date, at: datetime) -> bool:
        """Whether a day was over and judged at a moment, and did not drift."""
        return day < at.date() and day in self._drift and self._drift[day].verdict is Verdict.PASS

    def _keep(self, at: datetime, found: Mapping[str, Found]) -> None:
        day = day_of(at)
        said = {_name(check): result.score for check, result in found.items()}
        self._scores[day] = highest(self._scores.get(day, {}), said)

    def _cannot(self, reason: str) -> None:
        self.unknown[reason] = None


def recorded_verdicts(history: History, at: datetime) -> dict[str, Verdict]:
    """The verdicts of the latest day's groups of drift, as they were at a moment."""
    day = latest_day(history.drift, at)
    if day is None:
        return {}
    return {name: Verdict(group["verdict"]) for name, group in history.drift[day]["groups"].items()}


def latest_day(days: Mapping[date, Any], at: datetime) -> date | None:
    """The latest of some days that was over at a moment."""
    return max((day for day in days if day < at.date()), default=None)


def latest(drift: Mapping[date, DayAgain], at: datetime) -> DayAgain | None:
    """What the latest day that was over says."""
    day = latest_day(drift, at)
    return None if day is None else drift[day]


def _limits(quiet: Sequence[Mapping[str, float]], policy: ModelSpec) -> dict[str, float]:
    limits = limits_within_budget(quiet, LOOKS, policy.monitors.pages_per_quarter, seed=policy.training.seed)
    return {name: limit.score for name, limit in limits.items()}


def _is_of_production(recorded: Look) -> bool:
    return any(_name(check) != "missing_values" for check in recorded.found)


def _name(check: str) -> str:
    return check.rpartition(":")[2]


def _finding(check: str, found: Found) -> Finding:
    return Finding(check, found.verdict, Severity.PAGE if found.pages else Severity.TICKET, "", "", "")


def _opened(before: Mapping[str, OpenAlert], after: Sequence[OpenAlert]) -> Iterator[Event]:
    for alert in after:
        known = before.get(alert.cause)
        urgent = alert.severity is Severity.PAGE
        if known is None or (urgent and known.severity is not Severity.PAGE):
            yield Event(Kind.PAGE if urgent else Kind.TICKET, alert.cause, ", ".join(alert.checks))


def _over(before: Mapping[str, OpenAlert], after: Sequence[OpenAlert]) -> Iterator[Event]:
    still = {alert.cause for alert in after}
    for cause, alert in before.items():
        if cause not in still:
            yield Event(Kind.OVER, cause, ", ".join(alert.checks))
