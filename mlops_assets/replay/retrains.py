"""The retrain policy, asked again whenever the loop asked: on the signals of the moment, with a ledger of its own.

What became of a retrain that did happen is on record, and is judged again under the policy's gate and canary. One that
never happened has no outcome: it counts as pending until the record has a retrain for the same episode, which then
stands in for it. That is assumed, and said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from mlops_assets.drift.again import DayAgain
from mlops_assets.monitoring.look import day_of
from mlops_assets.monitoring.monitors import f1_drop
from mlops_assets.monitoring.retrain_policy import (
    Action,
    LedgerEntry,
    Outcome,
    RetrainDecision,
    Signals,
    WindowVerdict,
    decide,
)
from mlops_assets.replay.events import CANNOT, Event, Kind
from mlops_assets.replay.history import Decided, History
from mlops_assets.replay.known import KnownThen
from mlops_assets.replay.releases import Releases
from mlops_assets.spec import ModelSpec
from mlops_assets.verdict import Verdict


@dataclass(frozen=True)
class Asked:
    """One retrain that the policy asked for."""

    at: datetime
    key: str
    labels: int


class Retrains:
    """The policy's decisions from `first` on; what was asked for before is taken as it was."""

    def __init__(
        self,
        history: History,
        policy: ModelSpec,
        first: date,
        drift: Mapping[date, DayAgain],
        known: KnownThen,
        releases: Releases,
    ) -> None:
        self._history, self._policy, self._drift = history, policy, drift
        self._known, self._releases = known, releases
        self._recorded = [one for one in history.decisions if one.action == Action.RETRAIN]
        self._asked = [_asked(one) for one in self._recorded if day_of(one.at) < first]

    def decide(self, recorded: Decided) -> Event:
        """What the policy says where the record has this decision."""
        seen = (window.day for window in recorded.signals.windows)
        unknown = [f"drift of {day}: {why}" for day in seen if (why := self._unknown(day))]
        if unknown:
            return Event(Kind.DECISION, CANNOT, unknown[-1])
        decision = decide(self._signals(recorded), self._ledger(recorded), self._policy.retrain, recorded.at)
        if decision.action is Action.RETRAIN and decision.key is not None:
            self._asked.append(Asked(recorded.at, decision.key, decision.labels))
        return event_of(decision)

    def asked_for(self, recorded: Decided) -> bool:
        """Whether the policy asked for a retrain on record by then, or for one that it stands in for."""
        return any(answer is recorded for answer in self._answers().values())

    def assumptions(self) -> list[str]:
        """What is taken for granted of retrains that never happened."""
        answers, said = self._answers(), []
        for asked in self._asked:
            answer = answers.get(asked)
            if answer is None:
                said.append(f"the retrain of {_shown(asked.at)} for {asked.key} never happened: it counts as pending")
            elif answer.at != asked.at:
                said.append(
                    f"the retrain of {_shown(asked.at)} for {asked.key} never happened: "
                    f"it counts as pending until that of {_shown(answer.at)} stands in for it"
                )
        return said

    def _answers(self) -> dict[Asked, Decided]:
        """The retrain on record that answers each one asked for: itself, or else the next for the same episode."""
        exact = {(one.at, one.key): one for one in self._recorded}
        answers = {asked: exact[asked.at, asked.key] for asked in self._asked if (asked.at, asked.key) in exact}
        free = [one for one in self._recorded if one not in answers.values()]
        for asked in self._asked:
            later = next((one for one in free if one.key == asked.key and one.at > asked.at), None)
            if asked not in answers and later is not None:
                answers[asked] = later
                free.remove(later)
        return answers

    def _ledger(self, recorded: Decided) -> list[LedgerEntry]:
        """The policy's own ledger, each outcome as it was known at a recorded decision."""
        then = {(entry.at, entry.key): entry.outcome for entry in recorded.ledger}
        answers = self._answers()
        entries = []
        for asked in self._asked:
            answer = answers.get(asked)
            outcome = Outcome.PENDING if answer is None else then.get((answer.at, asked.key), Outcome.PENDING)
            if answer is not None and outcome in (Outcome.RELEASED, Outcome.NOT_RELEASED):
                outcome = self._releases.outcome(answer, outcome)
            entries.append(LedgerEntry(asked.at, asked.key, asked.labels, outcome))
        return entries

    def _signals(self, recorded: Decided) -> Signals:
        """The signals of the moment, with what the policy sees otherwise."""
        signals = recorded.signals
        windows = tuple(replace(window, verdict=self._verdict(window)) for window in signals.windows)
        quality = tuple(self._quality(window, recorded.at) for window in signals.quality)
        return replace(
            signals,
            windows=windows,
            quality=quality,
            drifted_labels=self._drifted_labels(recorded, windows),
            in_flight=signals.in_flight if self._is_under_way(recorded) else None,
        )

    def _unknown(self, day: date) -> str:
        """Why the drift of a day is not known; empty where it is."""
        if day not in self._drift or day not in self._history.quality:
            return "its document is gone"
        return "; ".join(self._drift[day].unknown) if self._drift[day].verdict is None else ""

    def _verdict(self, window: WindowVerdict) -> Verdict:
        again = self._drift.get(window.day)
        return window.verdict if again is None or again.verdict is None else again.verdict

    def _quality(self, window: WindowVerdict, as_of: datetime) -> WindowVerdict:
        """As recorded, unless the policy asks more or less of a day's labels."""
        own, policy = self._history.own.monitors, self._policy.monitors
        if (own.max_f1_drop, own.min_labels) == (policy.max_f1_drop, policy.min_labels):
            return window
        promised = self._history.quality[window.day]["promised_f1"]
        if promised is None:  # no gate judged the version
            return window
        found = f1_drop(self._known.quality(window.day, as_of), promised, self._policy.monitors)
        return replace(window, verdict=found.verdict)

    def _drifted_labels(self, recorded: Decided, windows: Sequence[WindowVerdict]) -> int:
        """As recorded, unless the policy sees drift on other days."""
        then, now = _drifted(recorded.signals.windows), _drifted(windows)
        version = self._releases.version(recorded.signals.production_version)
        if then == now or version is None:
            return recorded.signals.drifted_labels
        return self._known.labels(now, version.trained_until, recorded.at)

    def _is_under_way(self, recorded: Decided) -> bool:
        """Whether what was under way then is so here too: a submitted version, or a retrain asked for."""
        pending = {(entry.at, entry.key) for entry in recorded.ledger if entry.outcome is Outcome.PENDING}
        begun = [one for one in self._recorded if (one.at, one.key) in pending]
        return not begun or any(map(self.asked_for, begun))


def event_of(decision: RetrainDecision | Decided) -> Event:
    """A decision, recorded or made again, as an event."""
    cause = decision.cause or ""
    if decision.action == Action.RETRAIN:
        return Event(Kind.RETRAIN, str(cause), decision.reason)
    return Event(Kind.DECISION, f"{decision.action}: {cause}" if cause else str(decision.action), decision.reason)


def _asked(recorded: Decided) -> Asked:
    return Asked(recorded.at, recorded.key or "", recorded.labels)


def _drifted(windows: Sequence[WindowVerdict]) -> set[date]:
    return {window.day for window in windows if window.verdict is Verdict.FAIL}


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
