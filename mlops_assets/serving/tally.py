"""Counting one rollout inside one ingress replica: requests, failures, slow and wrong answers per step and arm.

A request counts at the step by whose weight it was split, however long its answer or its label takes. The
counts only grow; the guard takes differences. What they mean for the canary is the guard's matter.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import zip_longest
from typing import Literal

from mlops_assets.release.ab import GROUPS
from mlops_assets.release.assignment import group_of
from mlops_assets.release.rollout import ArmCounts, Counts
from mlops_assets.serving import stray_labels
from mlops_assets.serving.routing import CanaryRoute, Label, Labels, Tally

Arm = Literal["stable", "canary"]

# Labels mostly come within days, a rollout takes minutes to hours: so many predictions are remembered for them.
REMEMBERED = 200_000


@dataclass(frozen=True)
class _Predicted:
    """What an arm said, until the true label comes."""

    step: int
    arm: Arm
    label: str
    group: int | None


class RolloutTally:
    """What this replica has seen of the current rollout."""

    def __init__(self) -> None:
        self._rollout_id: str | None = None
        self._steps: list[Counts] = []
        self._groups: list[Counts] = []  # of the last step, where an A/B test holds it
        self._predicted: OrderedDict[str, _Predicted] = OrderedDict()
        self._entities: set[int] = set()
        self._running = False
        self._strays: deque[Label] = deque(maxlen=stray_labels.REMEMBERED)
        self._heard = 0

    def follow(self, route: CanaryRoute | None) -> None:
        """Count for this route's rollout and step from now on; another rollout starts at zero."""
        self._running = route is not None
        if route is None:
            return
        if route.rollout_id != self._rollout_id:
            self._rollout_id = route.rollout_id
            self._steps.clear()
            self._groups.clear()
            self._predicted.clear()
        if route.step >= len(self._steps):
            self._steps += [Counts()] * (route.step + 1 - len(self._steps))
            self._entities.clear()
            self._groups = [Counts()] * GROUPS if route.grouped else []

    def answered(
        self, route: CanaryRoute, arm: Arm, entity: str, prediction_id: str, label: str, latency_ms: float
    ) -> None:
        """An answer was given to an entity (a customer, or the request itself where there is none)."""
        if route.rollout_id != self._rollout_id:
            return
        slow, group = int(latency_ms > route.slow_ms), _group(route, entity)
        answered = ArmCounts(requests=1, slow=slow, entities=self._first_seen(route, entity))
        self._add_to(route.step, arm, answered, group)
        self._predicted[prediction_id] = _Predicted(route.step, arm, label, group)
        if len(self._predicted) > REMEMBERED:
            self._predicted.popitem(last=False)

    def failed(self, route: CanaryRoute, arm: Arm, entity: str) -> None:
        """An arm was asked and gave no answer, or not in time."""
        if route.rollout_id == self._rollout_id:
            failed = ArmCounts(requests=1, failures=1, entities=self._first_seen(route, entity))
            self._add_to(route.step, arm, failed, _group(route, entity))

    def compared(self, route: CanaryRoute, agreed: int) -> None:
        """Both versions answered the same message; `agreed` is 1 where they gave the same label."""
        if route.rollout_id == self._rollout_id:
            self._add(route.step, Counts(compared=1, agreed=agreed))

    def dropped(self, route: CanaryRoute, entity: str) -> None:
        """A copy was not sent; its customer belongs to the canary's share all the same."""
        if route.rollout_id == self._rollout_id:
            self._add(route.step, Counts(canary=ArmCounts(entities=self._first_seen(route, entity)), dropped=1))

    def judged(self, label: Label) -> None:
        """The true label of a prediction came in; one that is not known here is for another replica."""
        if not self._matched(label) and self._running:
            self._strays.append(label)

    def report(self) -> Tally | None:
        """The counts of the newest rollout so far, or None before the first."""
        if self._rollout_id is None:
            return None
        steps = list(self._steps)
        if self._groups:
            steps[-1] = replace(steps[-1], groups=tuple(self._groups))
        return Tally(self._rollout_id, tuple(steps), tuple(self._strays), self._heard)

    def exchanged(self, said: Tally, heard: Labels) -> None:
        """The guard took what was `said`, and passed on the labels that other replicas, and this one, did not know.

        One's own come back too: in a shadow step a label may be faster than the canary's answer.
        """
        taken = set(said.strays)
        self._strays = deque((label for label in self._strays if label not in taken), self._strays.maxlen)
        self._heard = heard.number
        for label in heard.labels:
            self._matched(label)

    def _matched(self, label: Label) -> bool:
        """Judge the prediction, if it is known here; each is judged once."""
        known = self._predicted.pop(label.prediction_id, None)
        if known is not None:
            judged = ArmCounts(judged=1, wrong=int(known.label != label.label))
            self._add_to(known.step, known.arm, judged, known.group)
        return known is not None

    def _add_to(self, step: int, arm: Arm, more: ArmCounts, group: int | None) -> None:
        self._steps[step] = _plus(self._steps[step], arm, more)
        if group is not None:
            self._groups[group] = _plus(self._groups[group], arm, more)

    def _add(self, step: int, more: Counts) -> None:
        self._steps[step] = self._steps[step] + more

    def _first_seen(self, route: CanaryRoute, entity: str) -> int:
        """1 for an entity that is new at the present step: only there are those that were seen remembered."""
        key = hash(entity)
        if route.step + 1 < len(self._steps) or key in self._entities or len(self._entities) >= REMEMBERED:
            return 0
        if not self._entities:  # from here on this replica is one of those that count
            self._add(route.step, Counts(times_counted=1))
        self._entities.add(key)
        return 1


def _plus(counts: Counts, arm: Arm, more: ArmCounts) -> Counts:
    if arm == "canary":
        return replace(counts, canary=counts.canary + more)
    return replace(counts, stable=counts.stable + more)


def _group(route: CanaryRoute, entity: str) -> int | None:
    return group_of(entity, route.salt, GROUPS) if route.grouped else None


def since(now: Sequence[Counts], before: Sequence[Counts]) -> tuple[Counts, ...]:
    """What was counted at each step between two reports of one replica.

    >>> since([Counts(stable=ArmCounts(requests=5))], [Counts(stable=ArmCounts(requests=3))])[0].stable.requests
    2
    """
    pairs = zip_longest(now, before, fillvalue=Counts())
    return tuple(_since(after, earlier) for after, earlier in pairs)


def _since(now: Counts, before: Counts) -> Counts:
    arms = (_arm_since(now.stable, before.stable), _arm_since(now.canary, before.canary))
    copies = now.compared - before.compared, now.agreed - before.agreed, now.dropped - before.dropped
    return Counts(*arms, *copies, since(now.groups, before.groups), now.times_counted - before.times_counted)


def _arm_since(now: ArmCounts, before: ArmCounts) -> ArmCounts:
    return ArmCounts(**{part.name: getattr(now, part.name) - getattr(before, part.name) for part in fields(ArmCounts)})
