"""Counting one rollout inside one ingress replica: requests, failures, slow and wrong answers per arm.

The counts only grow; the guard takes differences. What they mean for the canary is the guard's matter.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import fields
from typing import Literal

from mlops_assets.release.rollout import ArmCounts, Counts
from mlops_assets.serving.routing import Tally

Arm = Literal["stable", "canary"]

# Labels mostly come within days, a rollout takes minutes to hours: so many predictions are remembered for them.
REMEMBERED = 200_000


class RolloutTally:
    """What this replica has seen of the current rollout.

    Args:
        slow_ms: an answer that took longer counts as slow.
    """

    def __init__(self, slow_ms: float) -> None:
        self._slow_ms = slow_ms
        self._counting = False
        self._rollout_id: str | None = None
        self._arms: dict[Arm, ArmCounts] = {}
        self._labels: OrderedDict[str, tuple[Arm, str]] = OrderedDict()
        self._entities: set[int] = set()

    def follow(self, rollout_id: str | None) -> None:
        """Count for this rollout from now on; another one starts at zero, None pauses the count."""
        self._counting = rollout_id is not None
        if rollout_id is not None and rollout_id != self._rollout_id:
            self._rollout_id = rollout_id
            self._arms = {"stable": ArmCounts(), "canary": ArmCounts()}
            self._labels.clear()
            self._entities.clear()

    def answered(self, arm: Arm, entity: str, prediction_id: str, label: str, latency_ms: float) -> None:
        """An answer was given to an entity (a customer, or the request itself where there is none)."""
        if not self._counting:
            return
        slow = int(latency_ms > self._slow_ms)
        self._add(arm, ArmCounts(requests=1, slow=slow, entities=self._first_seen(entity)))
        self._labels[prediction_id] = (arm, label)
        if len(self._labels) > REMEMBERED:
            self._labels.popitem(last=False)

    def failed(self, arm: Arm, entity: str) -> None:
        """An arm was asked and gave no answer, or not in time."""
        if self._counting:
            self._add(arm, ArmCounts(requests=1, failures=1, entities=self._first_seen(entity)))

    def judged(self, prediction_id: str, label: str) -> None:
        """The true label of a prediction came in; each prediction is judged once."""
        known = self._labels.pop(prediction_id, None)
        if known is not None:
            arm, predicted = known
            self._add(arm, ArmCounts(judged=1, wrong=int(predicted != label)))

    def report(self) -> Tally | None:
        """The counts of the newest rollout so far, or None before the first."""
        if self._rollout_id is None:
            return None
        return Tally(self._rollout_id, Counts(stable=self._arms["stable"], canary=self._arms["canary"]))

    def _add(self, arm: Arm, more: ArmCounts) -> None:
        self._arms[arm] = self._arms[arm] + more

    def _first_seen(self, entity: str) -> int:
        key = hash(entity)
        if key in self._entities or len(self._entities) >= REMEMBERED:
            return 0
        self._entities.add(key)
        return 1


def since(now: Counts, before: Counts) -> Counts:
    """What was counted between two reports of one replica.

    >>> since(Counts(stable=ArmCounts(requests=5)), Counts(stable=ArmCounts(requests=3))).stable.requests
    2
    """
    return Counts(_arm_since(now.stable, before.stable), _arm_since(now.canary, before.canary))


def _arm_since(now: ArmCounts, before: ArmCounts) -> ArmCounts:
    return ArmCounts(**{part.name: getattr(now, part.name) - getattr(before, part.name) for part in fields(ArmCounts)})
