"""One rollout under another policy: its logged requests counted anew, and judged at the cadence at which counts reach
the guard.

Where the policy is the one that ran, the judgements on record are made again on the counts that they had. The rules
are `release.rollout`'s; here is only what would have been counted by when, and what the log cannot say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from math import isclose
from typing import Any

import polars as pl

from mlops_assets.release import rollout
from mlops_assets.release.assignment import in_canary
from mlops_assets.release.ladder import Step, ladder
from mlops_assets.release.rollout import ArmCounts, Counts, Phase, RolloutState
from mlops_assets.spec import CanarySpec

PROMOTED, ABORTED, INCONCLUSIVE, UNDER_WAY = "promoted", "aborted", "inconclusive", "under way"
_OUTCOMES = {
    Phase.PROMOTING: PROMOTED,
    Phase.SEALED: PROMOTED,
    Phase.SUCCEEDED: PROMOTED,
    Phase.FAILED: ABORTED,
    Phase.INCONCLUSIVE: INCONCLUSIVE,
}
_OF_ACTION = {"promote": PROMOTED, "abort": ABORTED, "inconclusive": INCONCLUSIVE}


@dataclass(frozen=True)
class RolloutAgain:
    """How a rollout ends.

    Attributes:
        outcome: None where it cannot be replayed; `reason` says why.
        at: wall time of the end.
        assumed: what the replay took for granted.
    """

    outcome: str | None
    at: datetime | None
    reason: str
    assumed: str = ""


class _Unanswerable(Exception):
    """The log cannot say how it goes on; the message says why."""


def as_recorded(state: RolloutState) -> RolloutAgain:
    """How it ended."""
    return RolloutAgain(_OUTCOMES.get(state.phase, UNDER_WAY), _end_of(state), state.reason)


def time_scale(declared: CanarySpec, ran: CanarySpec) -> float | None:
    """How much shorter than declared the times of a policy were when it ran; None where another policy ran.

    >>> time_scale(CanarySpec(), CanarySpec(minutes=0.5, max_minutes=4)) == 1 / 60
    True
    >>> time_scale(CanarySpec(), CanarySpec(minutes=0.5, max_minutes=5)) is None
    True
    """
    scale = ran.minutes / declared.minutes
    return scale if _is_same(declared.scaled(scale), ran) else None


def judge_again(
    state: RolloutState, policy: CanarySpec, requests: pl.DataFrame, feedback: pl.DataFrame, exchange_seconds: float
) -> RolloutAgain:
    """How it ends under `policy`.

    A smaller share of customers than the one that ran is replayed without those in between, whom the canary answered:
    the canary's arm is exactly that of the smaller share, and the weight is its share of the customers left.

    Args:
        requests: the log, as `monitoring.predictions.read_requests` gives it.
        feedback: labels as they were received.
        exchange_seconds: how often the counts are judged.
    """
    if _is_same(policy, state.policy):
        return _judged_as_then(state)
    if not state.steps:
        return as_recorded(state)
    log = requests.filter((pl.col("rollout_id") == state.rollout_id) & pl.col("counted").is_not_null())
    climb = _Climb(state, policy, log, feedback)
    try:
        _check_complete(state, log.height)
        return climb.to_the_end(timedelta(seconds=exchange_seconds))
    except _Unanswerable as error:
        return RolloutAgain(None, None, str(error), climb.assumed)


def _is_same(policy: CanarySpec, other: CanarySpec) -> bool:
    """Whether two policies differ in rounding alone, as scaled times do."""
    pairs = ((getattr(policy, name), getattr(other, name)) for name in CanarySpec.model_fields)
    return all(isclose(a, b, rel_tol=1e-12) if isinstance(a, float) else a == b for a, b in pairs)


def _judged_as_then(state: RolloutState) -> RolloutAgain:
    recorded = as_recorded(state)
    again = rollout.replay(state)
    if not again or again[-1][0] is not state.history[-1]:  # ended for a reason other than its counts
        return recorded
    judgement, decision = again[-1]
    return RolloutAgain(_OF_ACTION.get(decision.action, recorded.outcome), judgement.at, decision.reason)


def _end_of(state: RolloutState) -> datetime | None:
    return state.history[-1].at if state.history else state.started_at


def _check_complete(state: RolloutState, logged: int) -> None:
    counted = state.total.stable.requests + state.total.canary.requests
    if ladder(state.policy)[0].shadow:
        raise _Unanswerable("it had a shadow step, whose copies are not in the log of requests")
    if logged < counted:
        raise _Unanswerable(f"the log tells of {logged} of the {counted} requests that were counted")


@dataclass(frozen=True)
class _Request:
    """One logged request; `answered` is when it was counted, `took` None where the arm failed."""

    prediction_id: str
    entity: str
    arm: str
    received: datetime
    answered: datetime
    took: float | None
    label: str | None


class _Climb:
    """The rollout on its way up another ladder."""

    def __init__(self, state: RolloutState, policy: CanarySpec, log: pl.DataFrame, feedback: pl.DataFrame) -> None:
        assert state.started_at is not None
        self.assumed = ""
        self._recorded = state
        self._ladder = ladder(policy)
        self._start: datetime = state.started_at
        self._end = max(_end_of(state) or self._start, self._start)
        begun = replace(state, policy=policy, phase=Phase.INITIALIZING, steps=(), history=(), approval=None, reason="")
        self._state = rollout.ready(begun, self._start)
        self._entered: tuple[int, float] | None = None
        self._arriving = deque(_requests(log))
        self._under_way: list[tuple[datetime, int, int, _Request]] = []
        self._labels = deque(feedback.sort("received_at").select("received_at", "prediction_id", "label").iter_rows())
        self._said: dict[str, tuple[int, str, str]] = {}  # what was answered at which step by whom, until its label
        self._seen: set[str] = set()
        self._number = count()

    def to_the_end(self, every: timedelta) -> RolloutAgain:
        for moment in self._moments(every):
            self._fit(moment)
            self._state = rollout.advance(rollout.observe(self._state, self._counted_by(moment)), moment)
            if self._state.phase is Phase.WAITING_PROMOTION:
                return self._approved(moment)
            if self._state.phase in _OUTCOMES:
                return RolloutAgain(_OUTCOMES[self._state.phase], moment, self._state.reason, self.assumed)
        recorded = self._recorded
        if recorded.history and not recorded.history[-1].claims:  # stopped by hand, or its process died: so it is here
            return replace(as_recorded(recorded), assumed=self.assumed)
        why = rollout.decide(self._state, self._end).reason
        raise _Unanswerable(f"no verdict within the {self._minutes:.1f} minutes on record: {why}")

    @property
    def _minutes(self) -> float:
        return (self._end - self._start).total_seconds() / 60

    def _moments(self, every: timedelta) -> Iterator[datetime]:
        """When the counts are judged: at every exchange, and at the last judgement on record."""
        moment = self._start + every
        while moment < self._end:
            yield moment
            moment += every
        yield self._end

    def _approved(self, moment: datetime) -> RolloutAgain:
        approval = self._recorded.approval
        if approval is None:
            raise _Unanswerable(f"it waits for a person after {self._since(moment)} minutes, and nobody was asked")
        return RolloutAgain(PROMOTED, max(moment, approval.at), f"approved by {approval.by}", self.assumed)

    def _since(self, moment: datetime) -> str:
        return f"{(moment - self._start).total_seconds() / 60:.1f}"

    def _fit(self, moment: datetime) -> None:
        """See to it that the step asks nothing of the log that it cannot answer."""
        place = len(self._state.steps) - 1
        wanted, ran = self._ladder[place], self._ran(moment)
        if wanted.shadow:
            raise _Unanswerable(f"{wanted} were never sent")
        if wanted.weight > ran.weight:
            raise _Unanswerable(
                f"{wanted} would take the canary after {self._since(moment)} minutes, only {ran} had it then"
            )
        weight = wanted.weight / (wanted.weight + 1.0 - ran.weight)
        if self._entered == (place, weight):
            return
        if self._entered is not None and self._entered[0] == place:
            raise _Unanswerable(f"the share of customers went on to {ran} while {wanted} are asked for")
        self._entered = (place, weight)
        self._seen.clear()
        if wanted.weight < ran.weight:
            self.assumed = f"customers between {100 * wanted.weight:g} % and {100 * ran.weight:g} % are left out"
            self._reweigh(place, weight)

    def _reweigh(self, place: int, weight: float) -> None:
        weights = list(self._state.policy.weights)
        weights[place] = weight  # there is no shadow step before it, or it had ended here
        policy = self._state.policy.model_copy(update={"weights": tuple(weights)})
        self._state = replace(self._state, policy=policy)

    def _ran(self, moment: datetime) -> Step:
        """The step on record at a moment."""
        begun = sum(step.started_at <= moment for step in self._recorded.steps)
        return ladder(self._recorded.policy)[max(begun, 1) - 1]

    def _counted_by(self, moment: datetime) -> list[Counts]:
        """What was answered and labelled since the last call, step by step."""
        counts = [Counts()] * len(self._state.steps)
        while self._arriving and self._arriving[0].received <= moment:
            request = self._arriving.popleft()
            weight = self._ladder[len(self._state.steps) - 1].weight
            if request.arm != "canary" or in_canary(request.entity, self._recorded.salt, weight):
                place = len(self._state.steps) - 1
                heappush(self._under_way, (request.answered, next(self._number), place, request))
        while self._under_way and self._under_way[0][0] <= moment:
            _, _, place, request = heappop(self._under_way)
            counts[place] += self._answered(place, request)
        while self._labels and self._labels[0][0] <= moment:
            _, prediction_id, label = self._labels.popleft()
            if prediction_id in self._said:
                place, arm, said = self._said.pop(prediction_id)
                counts[place] += _of(arm, ArmCounts(judged=1, wrong=int(said != label)))
        return counts

    def _answered(self, place: int, request: _Request) -> Counts:
        first = place == len(self._state.steps) - 1 and request.entity not in self._seen
        self._seen.add(request.entity)
        if request.took is None:
            return _of(request.arm, ArmCounts(requests=1, failures=1, entities=int(first)))
        if request.label is not None:
            self._said[request.prediction_id] = (place, request.arm, request.label)
        slow = int(request.took > self._state.policy.max_p99_ms)
        return _of(request.arm, ArmCounts(requests=1, slow=slow, entities=int(first)))


def _of(arm: str, counts: ArmCounts) -> Counts:
    return Counts(canary=counts) if arm == "canary" else Counts(stable=counts)


def _requests(log: pl.DataFrame) -> Iterator[_Request]:
    for row in log.sort("received_at").iter_rows(named=True):
        yield _request(row)


def _request(row: dict[str, Any]) -> _Request:
    failed = row["arm"] != row["counted"] or row["status"] != "ok"
    return _Request(
        prediction_id=row["prediction_id"],
        entity=row["customer_id"] or row["prediction_id"],
        arm=row["counted"],
        received=row["received_at"],
        answered=row["received_at"] + timedelta(milliseconds=row["latency_ms"]),
        took=None if failed else row["version_ms"],
        label=row["predicted"],
    )
