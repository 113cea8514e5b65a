"""Keeps one model's rollout: durable on every change, fed with counts, aliases and signs of life.

The rules of a rollout are `release.rollout`'s. Here is what makes them hold in a process that may die
at any line: the state file, counts that are taken once however often they are sent, and the order in
which things happen. Talking to the registry is left to the guard.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mlops_assets.release import rollout
from mlops_assets.release.ladder import ladder
from mlops_assets.release.rollout import Approval, Counts, Phase, RolloutState
from mlops_assets.serving.routing import CanaryRoute, Route, Tally, VersionRef
from mlops_assets.serving.tally import since
from mlops_assets.serving.trouble import Trouble
from mlops_assets.spec import ModelSpec
from mlops_assets.storage import digest_file, read_json, write_json

log = logging.getLogger("mlops_assets.serving")

# A canary whose process cannot be had for so long has failed.
ABSENT_SECONDS = 120.0
# A process that keeps dying is the version's doing; one death may be the machine's.
MAX_BIRTHS = 3


class StateNotWritten(RuntimeError):
    """The rollout's state cannot be written (a full disk): what was to change has not, in the file or in force."""


@dataclass(frozen=True)
class Outcome:
    """How a rollout ended, or what a person is to decide on, for the registry."""

    version: int
    rollout_id: str
    phase: Phase
    evidence: dict[str, Any]


@dataclass(frozen=True)
class Record:
    """What is on disk.

    Attributes:
        rollout: the newest rollout, or None before the first.
        canary: its version's files.
        stable: the production version as last seen in the registry.
        seen: per ingress replica, the counts of each step that were taken from it already.
        births: lives of the canary process during this rollout; one is counted where all was started anew meanwhile.
        closed: the registry knows how it ended.
        submitted: the registry has what a person is to decide on.
    """

    rollout: RolloutState | None = None
    canary: VersionRef | None = None
    stable: VersionRef | None = None
    seen: Mapping[str, tuple[Counts, ...]] = field(default_factory=dict)
    births: tuple[str, ...] = ()
    closed: bool = True
    submitted: bool = False


class Keeper:
    """One model's rollout; safe to call from several threads.

    What changes a rollout raises `StateNotWritten` where that cannot be made durable. Until it can be, no canary
    answers: what it does would be forgotten, and a canary whose faults are forgotten is not guarded.
    """

    def __init__(self, spec: ModelSpec, folder: Path, time_scale: float) -> None:
        self._model = spec.name
        self._policy = spec.canary.scaled(time_scale)
        self._path = folder / "state.json"
        self._lock = threading.RLock()
        self._record = self._kept()
        self._beat = 0
        self._absent_since: datetime | None = None
        self._seen_alive = False
        self._unwritten = Trouble(f"{spec.name}: the rollout's state cannot be written")

    @property
    def unwritten(self) -> str | None:
        """Why the state cannot be written; None: it can."""
        return self._unwritten.why

    def write_again(self) -> None:
        """Where the state could not be written, write it as it is in force: that shows when it can be again."""
        with self._lock:
            if self.unwritten is not None:
                self._save(self._record)

    def route(self) -> Route:
        """Whom to ask now."""
        with self._lock:
            state, ref = self._record.rollout, self._record.canary
            if state is None or ref is None or not state.phase.is_live or self.unwritten is not None:
                return Route(self._record.stable)
            step, number = state.step, len(state.steps) - 1
            canary = CanaryRoute(
                ref,
                state.rollout_id,
                number,
                state.salt,
                step.weight,
                shadow=step.shadow,
                beat=self._beat,
                slow_ms=state.policy.max_p99_ms,
                grouped=state.holds,
            )
            return Route(self._record.stable, canary)

    def canary_ref(self) -> VersionRef | None:
        """The version that the canary process has to hold, if any."""
        with self._lock:
            state = self._record.rollout
            return self._record.canary if state is not None and not state.phase.is_terminal else None

    @property
    def is_idle(self) -> bool:
        """Whether no rollout runs, and the registry knows how the last one ended."""
        with self._lock:
            return self._record.closed

    def phase(self) -> str:
        """The phase of the newest rollout."""
        with self._lock:
            return self._record.rollout.phase.value if self._record.rollout else "none"

    def absorb(self, replica: str, tally: Tally, now: datetime) -> None:
        """Take what a replica counted since it was last asked, then judge."""
        with self._lock:
            state = self._record.rollout
            if state is None or tally.rollout_id != state.rollout_id or state.phase.is_terminal:
                return
            delta = since(tally.steps, self._record.seen.get(replica, ()))
            advanced = rollout.advance(rollout.observe(state, delta), now)
            if advanced != state:
                seen = {**self._record.seen, replica: tally.steps}
                self._save(replace(self._record, rollout=advanced, seen=seen))

    def follow(
        self,
        stable: VersionRef | None,
        canary: VersionRef | None,
        holder: int | None,
        now: datetime,
        requests_per_second: float | None = None,
    ) -> int | None:
        """Take the registry's aliases; returns the version whose rollout begins with that, if one does.

        Args:
            stable: holder of the alias production.
            canary: holder of the alias canary, if it may be started.
            holder: number of the version that holds the alias canary, startable or not.
            requests_per_second: the traffic to expect, if it is known.
        """
        with self._lock:
            if stable != self._record.stable:
                self._save(replace(self._record, stable=stable))
            state = self._record.rollout
            if state is not None and not state.phase.is_terminal:
                self._save_rollout(_follow_running(state, stable, holder, now))
                return None
            if not self._record.closed or canary is None or stable is None or canary.version == stable.version:
                return None
            return self._start(stable, canary, now, requests_per_second)

    def canary_ready(self, ref: VersionRef, birth: str, now: datetime) -> None:
        """The canary process holds `ref`; it may be asked (again)."""
        with self._lock:
            state = self._record.rollout
            if state is None or state.phase.is_terminal or ref != self._record.canary:
                return
            self._absent_since = None
            self._beat += 1
            if birth not in self._record.births:
                # The first that a guard finds is no death that it saw: with it, everything may have been started anew.
                lives = self._record.births if self._seen_alive else self._record.births[:-1]
                self._save(replace(self._record, births=(*lives, birth)))
            self._seen_alive = True
            if len(self._record.births) > MAX_BIRTHS:
                state = rollout.abort(state, f"the canary's process died {len(self._record.births) - 1} times", now)
            self._save_rollout(rollout.advance(rollout.ready(state, now), now))

    def canary_unusable(self, ref: VersionRef, reason: str, now: datetime) -> None:
        """The version cannot be loaded: its rollout is over."""
        with self._lock:
            if self._record.rollout is not None and ref == self._record.canary:
                self._save_rollout(rollout.abort(self._record.rollout, f"the canary cannot be loaded: {reason}", now))

    def canary_missing(self, now: datetime) -> None:
        """The canary process did not answer; for too long, and the rollout is over."""
        with self._lock:
            state = self._record.rollout
            if state is None or state.phase.is_terminal:
                return
            self._absent_since = self._absent_since or now
            if (now - self._absent_since).total_seconds() > ABSENT_SECONDS:
                state = rollout.abort(state, f"the canary's process was absent for {ABSENT_SECONDS:g} s", now)
            self._save_rollout(rollout.advance(state, now))

    def seal(self, version: int, approval: Approval | None, now: datetime) -> str | None:
        """Seal: "sealed", "aborted: why" or "not ready: why"; None when there is no rollout of that version."""
        with self._lock:
            state = self._record.rollout
            if state is None or state.version != version:
                return None
            sealed, answer = rollout.seal(rollout.advance(state, now), approval)
            self._save_rollout(sealed)
            return answer

    def abort(self, version: int, reason: str, now: datetime) -> str | None:
        """Stop by hand; returns why that is not possible, or None."""
        with self._lock:
            state = self._record.rollout
            if state is None or state.version != version:
                return f"there is no rollout of version {version}"
            if state.phase.is_terminal:
                return f"too late: the rollout is {state.phase.value}: {state.reason}"
            aborted = rollout.abort(state, f"stopped by hand: {reason}", now)
            self._save_rollout(aborted)
            return None if aborted.phase is Phase.FAILED else f"too late: the rollout is {aborted.phase.value}"

    def outcome(self) -> Outcome | None:
        """What the registry has yet to be told, if anything."""
        with self._lock:
            state = self._record.rollout
            if state is None or not state.phase.is_terminal or self._record.closed:
                return None
            return Outcome(state.version, state.rollout_id, state.phase, self.evidence())

    def closed(self, outcome: Outcome) -> None:
        """The registry has been told."""
        with self._lock:
            if self._record.rollout is not None and self._record.rollout.rollout_id == outcome.rollout_id:
                self._save(replace(self._record, closed=True))

    def awaiting(self) -> Outcome | None:
        """What a person is to decide on and the registry has yet to be given, if anything."""
        with self._lock:
            state = self._record.rollout
            if state is None or state.phase is not Phase.WAITING_PROMOTION or self._record.submitted:
                return None
            return Outcome(state.version, state.rollout_id, state.phase, self.evidence())

    def submitted(self, waiting: Outcome) -> None:
        """The registry has it."""
        with self._lock:
            if self._record.rollout is not None and self._record.rollout.rollout_id == waiting.rollout_id:
                self._save(replace(self._record, submitted=True))

    def evidence(self) -> dict[str, Any]:
        """The document behind the newest rollout's verdict: `rollout` holds all that it can be judged again from."""
        with self._lock:
            state = self._record.rollout
            assert state is not None
            return {
                "outcome": state.phase.value,
                "reason": state.reason,
                "started_at": state.started_at,
                "decided_at": state.history[-1].at if state.history else None,
                "rollout": state.to_dict(),
                "canary": self._record.canary,
                "canary_processes": len(self._record.births),
            }

    def describe(self, now: datetime) -> dict[str, Any]:
        """Phase, arms, counts and the judgement as of now, as plain JSON types."""
        with self._lock:
            state = self._record.rollout
            stable = self._record.stable.version if self._record.stable else None
            if state is None:
                return {"model": self._model, "phase": "none", "production_version": stable}
            decision = rollout.decide(state, now)
            claims = [{**asdict(claim), "verdict": claim.verdict.value} for claim in decision.claims]
            judgement = {
                "action": decision.action,
                "reason": decision.reason,
                "claims": claims,
                "expected_seconds_to_verdict": decision.expected_seconds_to_verdict,
                "comparison": asdict(decision.comparison) if decision.comparison else None,
            }
            told = {"production_version": stable, "registry_told": self._record.closed}
            return {**state.to_dict(), **_standing(state), **told, "decision": judgement}

    def _kept(self) -> Record:
        """What is on disk; what this release cannot read is set aside, and a canary that runs begins anew."""
        if not self._path.exists():
            return Record()
        try:
            return _json().validate_python(read_json(self._path))
        except ValueError as error:
            aside = self._path.with_name(f"state.unreadable-{digest_file(self._path)[:12]}.json")
            self._path.rename(aside)
            log.error(
                "%s: the rollout's state cannot be read (did another release write it?): set aside as %s, and a canary "
                "begins anew: %s",
                *(self._model, aside, error),
            )
            return Record()

    def _start(self, stable: VersionRef, canary: VersionRef, now: datetime, requests_per_second: float | None) -> int:
        state = rollout.start(
            model=self._model,
            version=canary.version,
            stable_version=stable.version,
            policy=self._policy,
            now=now,
            requests_per_second=requests_per_second,
        )
        self._beat, self._absent_since = 0, None
        self._save(Record(rollout.initialize(state), canary, stable, closed=False))
        log.info("%s: rollout of version %s begins", self._model, canary.version)
        return canary.version

    def _save_rollout(self, state: RolloutState) -> None:
        if state != self._record.rollout:
            self._save(replace(self._record, rollout=state))

    def _save(self, record: Record) -> None:
        """On disk first, in force second: what a caller was told survives a crash."""
        before, after = self._record.rollout, record.rollout
        try:
            write_json(self._path, _json().dump_python(record, mode="json"))
        except OSError as error:
            self._unwritten.met(error)
            raise StateNotWritten(
                f"the state of {self._model}'s rollout cannot be written ({self.unwritten}): nothing has changed, "
                "and no canary answers until it can be"
            ) from error
        self._unwritten.over()
        self._record = record
        if after is not None and (before is None or before.phase is not after.phase):
            log.info("%s: version %s is %s: %s", self._model, after.version, after.phase.value, after.reason)


def _standing(state: RolloutState) -> dict[str, Any]:
    """Where a rollout is, in the words of its ladder."""
    step = {"number": max(len(state.steps), 1), "of": len(ladder(state.policy)), **asdict(state.step)}
    moments = {"started_at": state.started_at, "waits_since": state.waits_since}
    told = {name: moment.isoformat() if moment else None for name, moment in moments.items()}
    return {**told, "weight": state.weight, "step": step, "counts": asdict(state.total)}


def _follow_running(state: RolloutState, stable: VersionRef | None, holder: int | None, now: datetime) -> RolloutState:
    """What a change of aliases means for a running rollout."""
    production = stable.version if stable else None
    if production == state.version:
        # Moved by the orchestrator after the seal, or by a person without asking: either way it is stable now.
        return rollout.succeed(state if state.phase is Phase.SEALED else replace(state, phase=Phase.SEALED))
    if production != state.stable_version:
        return rollout.withdraw(
            state, f"production moved from version {state.stable_version} to {production} meanwhile", now
        )
    if holder != state.version:
        return rollout.withdraw(state, f"the alias canary was moved to {holder}", now)
    return rollout.advance(state, now)


@cache
def _json() -> TypeAdapter[Record]:
    return TypeAdapter(Record)
