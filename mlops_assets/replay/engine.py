"""The time machine: a policy re-run over the stored history, day by day in event time.

Every decision is made again by the rule that makes it in the loop, on what was known at its moment. Same history and
policy, same answer. What the history cannot answer is an event of its own, with the reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta

from mlops_assets.declarations import REPLAYED
from mlops_assets.drift.again import DayAgain, judge_again
from mlops_assets.monitoring.look import day_of
from mlops_assets.replay.events import CANNOT, Day, Event, Kind, Replay
from mlops_assets.replay.history import Decided, History, Look
from mlops_assets.replay.known import KnownThen
from mlops_assets.replay.releases import Releases
from mlops_assets.replay.retrains import Retrains, event_of
from mlops_assets.replay.watch import Alerts, Watch, latest_day, recorded_verdicts
from mlops_assets.spec import ModelSpec

Events = dict[date, list[Event]]


def replay(history: History, policy: ModelSpec, first: date, last: date) -> Replay:
    """Re-run a policy from `first` to `last`, both included.

    Args:
        policy: the model's spec with the sections to try in place of its own.
    """
    walk = _Walk(history, policy, first, last)
    walk.run()
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    changes = changed(history.own, policy)
    return Replay(
        model=policy.name,
        first=first,
        last=last,
        changes=changes,
        days=tuple(Day(day, tuple(walk.happened[day]), tuple(walk.replayed[day])) for day in days),
        cannot=tuple(walk.watch.unknown),
        assumptions=(*_of_changes(changes), *walk.retrains.assumptions(), *walk.releases.assumptions()),
        unread=history.unread,
    )


def changed(own: ModelSpec, policy: ModelSpec) -> dict[str, tuple[object, object]]:
    """What a policy changes: ``section.field`` -> (the model's own value, the policy's).

    >>> changed(ModelSpec(name="m"), ModelSpec(name="m", drift={"alpha": 0.05}))
    {'drift.alpha': (0.01, 0.05)}
    """
    pairs = {}
    for section in REPLAYED:
        before, after = getattr(own, section), getattr(policy, section)
        for name in type(before).model_fields:
            values = getattr(before, name), getattr(after, name)
            if values[0] != values[1]:
                pairs[f"{section}.{name}"] = values
    return pairs


def _of_changes(changes: Mapping[str, object]) -> Iterator[str]:
    yield "what came before the first day is as it happened"
    if any(name in ("retrain.windows", "retrain.drifted") or name.startswith("drift.") for name in changes):
        yield "references are those that were made: by the policy a shift may have begun on another day, or never"
    if "retrain.schedule" in changes:
        yield "the policy is asked when the loop asked: another schedule asks at no other time"
    if "gate.max_latency_ms" in changes:
        yield "latencies are those measured against the limit of the day: slow calls were asked again only above it"


class _Walk:
    """One pass over what is on record, in the order in which it happened."""

    def __init__(self, history: History, policy: ModelSpec, first: date, last: date) -> None:
        self._history, self._policy, self._first, self._last = history, policy, first, last
        self._drift: dict[date, DayAgain] = {
            day: judge_again(document, history.own.drift, policy.drift) for day, document in history.drift.items()
        }
        known = KnownThen(history)
        self.releases = Releases(history, policy, first, last)
        self.retrains = Retrains(history, policy, first, self._drift, known, self.releases)
        self.watch = Watch(history, policy, self._drift, known)
        self._recorded = Alerts(policy.name)
        self.happened: Events = defaultdict(list)
        self.replayed: Events = defaultdict(list)

    def run(self) -> None:
        moments: list[Look | Decided] = [*self._history.looks, *self._history.decisions]
        for moment in sorted(moments, key=lambda moment: (moment.wall, isinstance(moment, Decided))):
            if day_of(moment.at) <= self._last:
                self._look(moment) if isinstance(moment, Look) else self._decide(moment)
        self._put(self.happened, self.releases.happened())
        self._put(self.replayed, self.releases.replayed(self.retrains.asked_for))
        for day in sorted(self._drift):
            self._judge(day)

    def _look(self, look: Look) -> None:
        day = day_of(look.at)
        verdicts = recorded_verdicts(self._history, look.at)
        self._put(self.happened, ((day, event) for event in self._recorded.tell(look.at, look.found, verdicts)))
        why = self._differs(latest_day(self._drift, look.at), look.at)
        told = self.watch.look(look) if why is None else [Event(Kind.ALERTS, CANNOT, why)]
        self._put(self.replayed, ((day, event) for event in told))

    def _decide(self, decided: Decided) -> None:
        day = day_of(decided.at)
        if day < self._first:
            return
        self._put(self.happened, [(day, event_of(decided))])
        why = self.releases.differs(decided.signals.production_version, decided.at, self.retrains.asked_for)
        said = self.retrains.decide(decided) if why is None else Event(Kind.DECISION, CANNOT, why)
        self._put(self.replayed, [(day, said)])

    def _judge(self, day: date) -> None:
        document, again = self._history.drift[day], self._drift[day]
        self.happened[day].insert(0, Event(Kind.DRIFT, str(document["verdict"]), document["summary"]))
        midnight = datetime.combine(day + timedelta(days=1), time(), UTC)
        why = self._differs(day, midnight)
        if why is None and again.verdict is not None:
            event = Event(Kind.DRIFT, str(again.verdict))
        else:
            event = Event(Kind.DRIFT, CANNOT, why or "; ".join(again.unknown))
        self.replayed[day].insert(0, event)

    def _differs(self, day: date | None, at: datetime) -> str | None:
        """Why a day's figures are of a version that the policy would not have had."""
        version = None if day is None else self._history.drift[day]["reference_version"]
        return None if version is None else self.releases.differs(version, at, self.retrains.asked_for)

    def _put(self, side: Events, told: Iterable[tuple[date, Event]]) -> None:
        """Add events to their days; a decision that only says the same again is told once a day."""
        for day, event in told:
            again = event.kind in (Kind.DECISION, Kind.ALERTS) and any(_same(event, known) for known in side[day])
            if not again:
                side[day].append(event)


def _same(event: Event, other: Event) -> bool:
    return (event.kind, event.what) == (other.kind, other.what)
