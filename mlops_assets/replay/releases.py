"""Which version a policy would have had in production: gates and rollouts on record, judged again.

The stored figures are about the versions that answered. Where a policy would have had another one, what follows
cannot be replayed: nothing was measured of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime

from mlops_assets.monitoring.look import day_of
from mlops_assets.monitoring.retrain_policy import Outcome
from mlops_assets.replay import gates, rollouts
from mlops_assets.replay.events import CANNOT, Event, Kind
from mlops_assets.replay.gates import GateAgain
from mlops_assets.replay.history import Decided, Gated, History, Released
from mlops_assets.replay.rollouts import PROMOTED, UNDER_WAY, RolloutAgain
from mlops_assets.spec import ModelSpec

AskedFor = Callable[[Decided], bool]


class Releases:
    """The releases from `first` to `last`; earlier ones are taken as they were."""

    def __init__(self, history: History, policy: ModelSpec, first: date, last: date) -> None:
        self._history, self._first, self._last = history, first, last
        self._versions = {released.version: released for released in history.versions}
        self._of_digest = {released.digest: released for released in history.versions}
        self._gates = {
            gated.digest: gates.judge_again(gated, policy.gate)
            for gated in history.gates
            if self._within(day_of(gated.at))
        }
        canary = policy.canary.scaled(history.time_scale)
        self._rollouts = {
            released.version: rollouts.judge_again(
                released.rollout, canary, history.requests, history.feedback, history.exchange_seconds
            )
            for released in history.versions
            if released.rollout is not None and self._within(self._ended(rollouts.as_recorded(released.rollout)))
        }

    def version(self, number: int | None) -> Released | None:
        """The registered version with a number."""
        return None if number is None else self._versions.get(number)

    def outcome(self, retrain: Decided, recorded: Outcome) -> Outcome:
        """What became of a retrain under the policy's gate and canary, where the record has an outcome."""
        gated = next((one for one in self._history.gates if one.retrain == retrain.id), None)
        if gated is None or gated.digest not in self._gates:
            return recorded
        gate = self._gates[gated.digest]
        if gate.released is False:
            return Outcome.NOT_RELEASED
        version = self._of_digest.get(gated.digest)
        if gate.released is None or version is None:
            return Outcome.PENDING  # it would be in a canary that never ran
        again = self._rollouts.get(version.version)
        if again is None:
            return recorded
        if again.outcome is None:
            return Outcome.PENDING
        return Outcome.RELEASED if again.outcome == PROMOTED else Outcome.NOT_RELEASED

    def differs(self, production: int | None, at: datetime, asked_for: AskedFor) -> str | None:
        """Why the policy would not have had the version in production at a moment (event time); None: it would."""
        released = self.version(production)
        if released is not None and (why := self._why_not(released, asked_for)):
            return f"version {released.version} was in production, and under this policy it is not: {why}"
        for version, again in self._rollouts.items():
            other = self._versions[version]
            replaces = again.outcome == PROMOTED and other.production_since is None and version > (production or 0)
            over = again.at is not None and self._history.event_time(again.at) <= at
            if replaces and over and self._why_not(other, asked_for) is None:
                return f"under this policy version {version} is in production, which never answered"
        return None

    def happened(self) -> Iterator[tuple[date, Event]]:
        """Gates, rollouts and releases on record, each with its day."""
        for gated in self._history.gates:
            told = "waived" if gated.inputs.waiver else "passed" if gated.released else "held"
            yield day_of(gated.at), Event(Kind.GATE, f"{self._name(gated)} {told}", gated.summary)
        for released in self._history.versions:
            if released.rollout is not None:
                ended = rollouts.as_recorded(released.rollout)
                if ended.outcome != UNDER_WAY:
                    yield self._ended(ended), _rollout(released.version, ended)
            if released.production_since is not None:
                yield day_of(released.production_since), Event(Kind.RELEASE, f"version {released.version}")

    def replayed(self, asked_for: AskedFor) -> Iterator[tuple[date, Event]]:
        """The same under the policy; nothing of a candidate whose retrain it would not have asked for."""
        for gated in self._history.gates:
            if gated.digest in self._gates and self._was_trained(gated.retrain, asked_for):
                yield from self._gate(gated, self._gates[gated.digest])
        for released in self._history.versions:
            if self._is_released_to(released, asked_for):
                yield from self._release(released)

    def assumptions(self) -> list[str]:
        """What the rollouts made again take for granted."""
        assumed = [(version, again.assumed) for version, again in self._rollouts.items() if again.assumed]
        return [f"rollout of version {version}: {said}" for version, said in assumed]

    def _gate(self, gated: Gated, again: GateAgain) -> Iterator[tuple[date, Event]]:
        day, name = day_of(gated.at), self._name(gated)
        if again.released is None:
            yield day, Event(Kind.GATE, CANNOT, f"{name}: {again.reason}")
            return
        told = "waived" if gated.inputs.waiver else "passed" if again.released else "held"
        yield day, Event(Kind.GATE, f"{name} {told}", again.reason)
        if again.released and gated.digest not in self._of_digest:
            yield day, Event(Kind.ROLLOUT, CANNOT, f"{name} would have gone into a canary, which never ran")

    def _release(self, released: Released) -> Iterator[tuple[date, Event]]:
        since = released.production_since
        if released.rollout is None:
            if since is not None:
                yield day_of(since), Event(Kind.RELEASE, f"version {released.version}")
            return
        again = self._rollouts.get(released.version)
        if again is None or again.outcome == UNDER_WAY:
            return
        recorded = self._ended(rollouts.as_recorded(released.rollout))
        if again.outcome is None:
            yield recorded, Event(Kind.ROLLOUT, CANNOT, f"version {released.version}: {again.reason}")
            return
        yield self._ended(again), _rollout(released.version, again)
        if again.outcome == PROMOTED:
            day = day_of(since) if since is not None else self._ended(again)
            yield day, Event(Kind.RELEASE, f"version {released.version}")

    def _why_not(self, released: Released, asked_for: AskedFor) -> str | None:
        if not self._was_trained(released.retrain, asked_for):
            return "it had not asked for the retrain that made it"
        gate = self._gates.get(released.digest)
        if gate is not None and gate.released is not True:
            return f"the gate {'cannot be replayed' if gate.released is None else 'holds it'}: {gate.reason}"
        again = self._rollouts.get(released.version)
        if again is not None and again.outcome not in (PROMOTED, UNDER_WAY):
            return f"its rollout {again.outcome or 'cannot be replayed'}: {again.reason}"
        return None

    def _is_released_to(self, released: Released, asked_for: AskedFor) -> bool:
        """Whether a version gets as far as a canary."""
        gate = self._gates.get(released.digest)
        return self._was_trained(released.retrain, asked_for) and (gate is None or gate.released is True)

    def _was_trained(self, retrain: str, asked_for: AskedFor) -> bool:
        """Whether a candidate is there at all: submitted, made for an earlier retrain, or for one asked for."""
        decision = self._history.decision(retrain)
        return decision is None or day_of(decision.at) < self._first or asked_for(decision)

    def _within(self, day: date) -> bool:
        return self._first <= day <= self._last

    def _ended(self, again: RolloutAgain) -> date:
        """The day of a rollout's end; of one that is under way, the last."""
        return day_of(self._history.event_time(again.at)) if again.at else self._last

    def _name(self, gated: Gated) -> str:
        released = self._of_digest.get(gated.digest)
        return f"version {released.version}" if released else f"candidate {gated.digest[:8]}"


def _rollout(version: int, again: RolloutAgain) -> Event:
    return Event(Kind.ROLLOUT, f"version {version} {again.outcome}", again.reason)
