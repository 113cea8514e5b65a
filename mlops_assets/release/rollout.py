"""The state machine of one rollout: from a version that waits for traffic to a verdict with its evidence.

Pure: state and time in, state or decision out; the caller keeps the state durable and carries out the
weight. Stopping needs nobody; promoting ends at PROMOTING and waits for the orchestrator's seal. The
vocabulary is Flagger's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from mlops_assets.release.claim import Claim
from mlops_assets.release.counts import ArmCounts, Counts, InvalidCounts
from mlops_assets.release.guards import judge_guards
from mlops_assets.release.promotion import judge_promotion, seconds_to_promotion
from mlops_assets.spec import CanarySpec
from mlops_assets.verdict import Verdict

__all__ = [
    "Action",
    "ArmCounts",
    "Claim",
    "Counts",
    "Decision",
    "InvalidCounts",
    "Phase",
    "RolloutState",
    "abort",
    "advance",
    "decide",
    "initialize",
    "observe",
    "ready",
    "seal",
    "start",
    "succeed",
]

Action = Literal["continue", "promote", "abort", "inconclusive"]
SEAL_GRANTED = "sealed"


class Phase(StrEnum):
    """Where a rollout stands."""

    WAITING = "waiting"  # declared; nothing loaded yet
    INITIALIZING = "initializing"  # the canary loads and warms up, without traffic
    PROGRESSING = "progressing"  # takes its share of traffic and is judged
    PROMOTING = "promoting"  # judged fit, still judged; waits for the orchestrator's seal
    SEALED = "sealed"  # can no longer be stopped; the orchestrator moves the alias
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"  # no verdict by the cap; the stable arm stays

    @property
    def is_terminal(self) -> bool:
        """True where nothing changes any more."""
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.INCONCLUSIVE)


@dataclass(frozen=True)
class RolloutState:
    """Everything that a rollout's decisions rest on.

    Parameters
    ----------
    weight : share of customers to send to the canary now; 0 outside PROGRESSING, PROMOTING and SEALED.
    requests_per_second : expected traffic of both arms together, before any was seen; None: unknown.
    claims : the evidence of the last change of phase that `advance` made.
    """

    rollout_id: str
    model: str
    version: int
    stable_version: int
    salt: str
    policy: CanarySpec
    phase: Phase = Phase.WAITING
    weight: float = 0.0
    started_at: datetime | None = None
    counts: Counts = field(default_factory=Counts)
    reason: str = ""
    requests_per_second: float | None = None
    claims: tuple[Claim, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; `from_dict` gives back an equal state."""
        return {
            **{name: getattr(self, name) for name in ("rollout_id", "model", "version", "stable_version", "salt")},
            "policy": self.policy.model_dump(mode="json"),
            "phase": self.phase.value,
            "weight": self.weight,
            "started_at": self.started_at.isoformat() if self.started_at else None,
            "counts": self.counts.to_dict(),
            "reason": self.reason,
            "requests_per_second": self.requests_per_second,
            "claims": [{**asdict(claim), "verdict": claim.verdict.value} for claim in self.claims],
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> RolloutState:
        """The inverse of `to_dict`."""
        started_at = document["started_at"]
        return cls(
            **{
                **document,
                "policy": CanarySpec.model_validate(document["policy"]),
                "phase": Phase(document["phase"]),
                "started_at": datetime.fromisoformat(started_at) if started_at else None,
                "counts": Counts.from_dict(document["counts"]),
                "claims": tuple(
                    Claim(**{**claim, "verdict": Verdict(claim["verdict"])}) for claim in document["claims"]
                ),
            }
        )


@dataclass(frozen=True)
class Decision:
    """What to do now, why, and on what evidence.

    Parameters
    ----------
    reason : one sentence for people.
    expected_seconds_to_verdict : at the present rates; None: over, or no traffic to tell it from.
    """

    action: Action
    reason: str
    claims: tuple[Claim, ...] = ()
    expected_seconds_to_verdict: float | None = None


def start(
    *,
    model: str,
    version: int,
    stable_version: int,
    policy: CanarySpec,
    now: datetime,
    requests_per_second: float | None = None,
) -> RolloutState:
    """Declare a rollout; it takes no traffic until `ready`. Its salt draws new customers for every rollout.

    Examples
    --------
    >>> from datetime import UTC, datetime, timedelta
    >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> state = start(model="m", version=2, stable_version=1, policy=CanarySpec(), now=noon)
    >>> state = ready(state, noon)
    >>> state = observe(state, Counts(ArmCounts(requests=4500), ArmCounts(requests=500)))
    >>> decide(state, noon + timedelta(minutes=10)).expected_seconds_to_verdict
    1200.0
    >>> advance(state, noon + timedelta(minutes=30)).phase.value
    'promoting'
    """
    rollout_id = f"{model}-v{version}-{_utc(now):%Y%m%dT%H%M%S%fZ}"
    return RolloutState(
        rollout_id=rollout_id,
        model=model,
        version=version,
        stable_version=stable_version,
        salt=rollout_id,
        policy=policy,
        reason="waits for the serving process",
        requests_per_second=requests_per_second,
    )


def initialize(state: RolloutState) -> RolloutState:
    """The serving process has begun to load the canary."""
    if state.phase is not Phase.WAITING:
        return state
    return replace(state, phase=Phase.INITIALIZING, reason="the canary loads and warms up")


def ready(state: RolloutState, now: datetime) -> RolloutState:
    """The canary is loaded and warm: give it its share of traffic and start its time."""
    if state.phase not in (Phase.WAITING, Phase.INITIALIZING):
        return state
    return replace(
        state,
        phase=Phase.PROGRESSING,
        weight=state.policy.weight,
        started_at=_utc(now),
        reason=f"the canary takes {state.policy.weight:.0%} of customers",
    )


def observe(state: RolloutState, delta: Counts) -> RolloutState:
    """Add what was counted since the last call; without effect once the verdict is out."""
    if state.phase not in (Phase.PROGRESSING, Phase.PROMOTING):
        return state
    return replace(state, counts=state.counts + delta)


def decide(state: RolloutState, now: datetime) -> Decision:
    """Judge the rollout as it stands; changes nothing, so it may be asked at any time and as often as one likes.

    Abort: a guard's e-value reached its limit. Promote: the least time has passed and every promotion claim
    passes. Inconclusive: neither by `policy.max_minutes`.

    Raises
    ------
    ValueError
        `now` has no time zone.
    """
    now = _utc(now)
    if state.phase is Phase.FAILED:
        return Decision("abort", state.reason, state.claims)
    if state.phase is Phase.INCONCLUSIVE:
        return Decision("inconclusive", state.reason, state.claims)
    if state.phase in (Phase.SEALED, Phase.SUCCEEDED):
        return Decision("promote", state.reason, state.claims)
    if state.started_at is None:
        return Decision("continue", state.reason, expected_seconds_to_verdict=_expected_seconds(state, 0.0))
    elapsed = max(0.0, (now - state.started_at).total_seconds())
    guards = judge_guards(state.counts, state.policy)
    claims = guards + judge_promotion(state.counts, state.policy, elapsed, guards)
    tripped = [claim for claim in guards if claim.verdict is Verdict.FAIL]
    if tripped:
        return Decision("abort", f"{tripped[0].name}: {tripped[0].message}", claims)
    if state.phase is Phase.PROMOTING:
        return Decision("promote", state.reason, state.claims, 0.0)
    return _decide_progress(state, claims, elapsed)


def advance(state: RolloutState, now: datetime) -> RolloutState:
    """Carry out `decide`: the phase and weight that follow from it. Idempotent at the same counts and time."""
    decision = decide(state, now)
    changes = {
        "abort": (Phase.FAILED, 0.0),
        "inconclusive": (Phase.INCONCLUSIVE, 0.0),
        "promote": (Phase.PROMOTING, state.weight),
    }
    if decision.action not in changes or state.phase not in (Phase.PROGRESSING, Phase.PROMOTING):
        return state
    phase, weight = changes[decision.action]
    return replace(state, phase=phase, weight=weight, reason=decision.reason, claims=decision.claims)


def seal(state: RolloutState) -> tuple[RolloutState, str]:
    """Ask for the right to move the alias: "sealed", or "aborted: why", or "not ready: why" while it is judged.

    Once sealed, a rollout cannot be stopped any more; asking again gives the same answer.
    """
    if state.phase in (Phase.SEALED, Phase.SUCCEEDED):
        return state, SEAL_GRANTED
    if state.phase is Phase.PROMOTING:
        return replace(state, phase=Phase.SEALED), SEAL_GRANTED
    if state.phase.is_terminal:
        return state, f"aborted: {state.reason}"
    return state, f"not ready: the rollout is {state.phase.value}: {state.reason}"


def succeed(state: RolloutState) -> RolloutState:
    """The alias has moved and the version is stable now; only a sealed rollout can get here."""
    if state.phase is not Phase.SEALED:
        return state
    return replace(state, phase=Phase.SUCCEEDED, weight=0.0)


def abort(state: RolloutState, reason: str) -> RolloutState:
    """Stop it, for a reason other than its counts; without effect once sealed or over."""
    if state.phase is Phase.SEALED or state.phase.is_terminal:
        return state
    return replace(state, phase=Phase.FAILED, weight=0.0, reason=reason)


def _decide_progress(state: RolloutState, claims: tuple[Claim, ...], elapsed: float) -> Decision:
    open_claims = [claim for claim in claims if claim.name.startswith("promotion.") and not claim.verdict.ok]
    if not open_claims:
        canary = state.counts.canary
        reason = f"fit for promotion after {elapsed / 60:.1f} minutes and {canary.requests} canary requests"
        return Decision("promote", reason, claims, 0.0)
    # What no further waiting mends is the most telling reason; after that, the claims in their order.
    telling = sorted(open_claims, key=lambda claim: claim.verdict is Verdict.INSUFFICIENT_DATA)[0]
    if state.counts.canary.requests == 0:
        telling = next((claim for claim in open_claims if claim.name == "promotion.success"), telling)
    if elapsed >= state.policy.max_minutes * 60:
        reason = f"no verdict within {state.policy.max_minutes:g} minutes, the stable version stays: {telling.message}"
        return Decision("inconclusive", reason, claims)
    return Decision("continue", telling.message, claims, _expected_seconds(state, elapsed))


def _expected_seconds(state: RolloutState, elapsed: float) -> float | None:
    canary = state.counts.canary.requests
    if canary and elapsed:
        rate = canary / elapsed
    elif state.requests_per_second is not None:
        rate = state.requests_per_second * state.policy.weight
    else:
        return None
    return seconds_to_promotion(state.counts, state.policy, elapsed, rate)


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; pass an aware datetime, e.g. datetime.now(UTC)")
    return moment.astimezone(UTC)
