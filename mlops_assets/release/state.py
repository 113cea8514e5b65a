"""What is known of one rollout: everything that its decisions rest on, and the record of those it made.

Plain frozen values that survive JSON unchanged, so that a decision can be made again from its document.
What follows from them is `mlops_assets.release.rollout`'s to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from mlops_assets.release.ab import Comparison
from mlops_assets.release.claim import Claim
from mlops_assets.release.counts import Counts
from mlops_assets.release.ladder import Step, ladder
from mlops_assets.spec import CanarySpec

Action = Literal["continue", "step", "await_approval", "promote", "abort", "inconclusive"]


class Phase(StrEnum):
    """Where a rollout stands; the vocabulary is Flagger's."""

    WAITING = "waiting"  # declared; nothing loaded yet
    INITIALIZING = "initializing"  # the canary loads and warms up, without traffic
    PROGRESSING = "progressing"  # takes its share of traffic and is judged, step by step
    WAITING_PROMOTION = "waiting_promotion"  # judged fit, or its A/B test is over; still judged; waits for a person
    PROMOTING = "promoting"  # judged fit, still judged; waits for the orchestrator's seal
    SEALED = "sealed"  # no guard stops it any more; the orchestrator moves the alias
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"  # no verdict by the cap; the stable arm stays

    @property
    def is_terminal(self) -> bool:
        """True where nothing changes any more."""
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.INCONCLUSIVE)

    @property
    def is_judged(self) -> bool:
        """True where counts come in and the guards may stop the canary."""
        return self in (Phase.PROGRESSING, Phase.WAITING_PROMOTION, Phase.PROMOTING)

    @property
    def is_live(self) -> bool:
        """True where the canary gets requests."""
        return self.is_judged or self is Phase.SEALED


@dataclass(frozen=True)
class StepState:
    """One step that was entered: since when, and what was counted of the requests that were split by its weight."""

    started_at: datetime
    counts: Counts = field(default_factory=Counts)


@dataclass(frozen=True)
class Approval:
    """Who let a version that was judged fit go into production, and when."""

    by: str
    at: datetime


@dataclass(frozen=True)
class Judgement:
    """One change of course, with all that it rested on.

    Parameters
    ----------
    claims : none where it did not come from the counts (stopped by hand, a process that died).
    steps : the steps as they stood then; labels may have been added to them since.
    comparison : of the arms, at the end of an A/B test.
    """

    at: datetime
    action: Action
    reason: str
    claims: tuple[Claim, ...]
    steps: tuple[StepState, ...]
    comparison: Comparison | None = None


@dataclass(frozen=True)
class RolloutState:
    """Everything that a rollout's decisions rest on.

    Parameters
    ----------
    salt : of the hash that assigns customers to the arms.
    steps : those entered so far; the last one is the present one.
    requests_per_second : expected traffic of both arms together, before any was seen; None: unknown.
    history : every change of course so far, oldest first.
    """

    rollout_id: str
    model: str
    version: int
    stable_version: int
    salt: str
    policy: CanarySpec
    phase: Phase = Phase.WAITING
    steps: tuple[StepState, ...] = ()
    reason: str = ""
    requests_per_second: float | None = None
    history: tuple[Judgement, ...] = ()
    approval: Approval | None = None

    @property
    def step(self) -> Step:
        """The present step; before the start, the first."""
        return ladder(self.policy)[max(len(self.steps) - 1, 0)]

    @property
    def is_last_step(self) -> bool:
        """Whether a promotion is what comes next."""
        return len(self.steps) == len(ladder(self.policy))

    @property
    def holds(self) -> bool:
        """Whether this is the step that an A/B test holds."""
        return self.policy.ab_hours > 0 and self.is_last_step

    @property
    def weight(self) -> float:
        """Share of customers whom the canary answers now."""
        return self.step.weight if self.phase.is_live and not self.step.shadow else 0.0

    @property
    def counts(self) -> tuple[Counts, ...]:
        """What was counted, step by step."""
        return tuple(step.counts for step in self.steps)

    @property
    def total(self) -> Counts:
        """What was counted in all steps together."""
        return sum(self.counts, Counts())

    @property
    def started_at(self) -> datetime | None:
        """When the first step began."""
        return self.steps[0].started_at if self.steps else None

    @property
    def waits_since(self) -> datetime | None:
        """When it began to wait for a person; None where it does not."""
        return self.history[-1].at if self.phase is Phase.WAITING_PROMOTION else None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; `from_dict` gives back an equal state."""
        document: dict[str, Any] = _json().dump_python(self, mode="json")
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> RolloutState:
        """The inverse of `to_dict`.

        Raises
        ------
        pydantic.ValidationError
            The document is no rollout's, or its counts cannot be true.
        """
        return _json().validate_python(document)


@cache
def _json() -> TypeAdapter[RolloutState]:
    return TypeAdapter(RolloutState)
