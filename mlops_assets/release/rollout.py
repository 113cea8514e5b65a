"""The state machine of one rollout: from a version that waits for traffic, up the ladder, to a verdict.

Pure: state and time in, state or decision out; the caller keeps the state durable and carries out the
weight. Stopping needs nobody; promoting ends at PROMOTING (or at WAITING_PROMOTION, where a person has to
agree) and waits for the orchestrator's seal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import zip_longest

from mlops_assets.release.ab import Comparison, compare
from mlops_assets.release.claim import Claim
from mlops_assets.release.counts import ArmCounts, Counts, InvalidCounts
from mlops_assets.release.guards import judge_guards
from mlops_assets.release.ladder import ladder
from mlops_assets.release.promotion import judge_hold, judge_promotion, seconds_to_promotion
from mlops_assets.release.state import Action, Approval, Judgement, Phase, RolloutState, StepState
from mlops_assets.spec import CanarySpec
from mlops_assets.verdict import Verdict

__all__ = [
    "Action",
    "Approval",
    "ArmCounts",
    "Claim",
    "Counts",
    "Decision",
    "InvalidCounts",
    "Judgement",
    "Phase",
    "RolloutState",
    "StepState",
    "abort",
    "advance",
    "decide",
    "initialize",
    "observe",
    "ready",
    "replay",
    "seal",
    "start",
    "succeed",
    "withdraw",
]

SEAL_GRANTED = "sealed"


@dataclass(frozen=True)
class Decision:
    """What to do now, why, and on what evidence.

    Parameters
    ----------
    reason : one sentence for people.
    expected_seconds_to_verdict : at the present rates; None: over, or no traffic to tell it from.
    comparison : of the arms, in an A/B test.
    """

    action: Action
    reason: str
    claims: tuple[Claim, ...] = ()
    expected_seconds_to_verdict: float | None = None
    comparison: Comparison | None = None


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
    >>> state = observe(state, [Counts(ArmCounts(requests=4500), ArmCounts(requests=500))])
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
    """The canary is loaded and warm: begin its first step."""
    if state.phase not in (Phase.WAITING, Phase.INITIALIZING):
        return state
    reason = f"the canary takes {state.step}"
    return replace(state, phase=Phase.PROGRESSING, steps=(StepState(_utc(now)),), reason=reason)


def observe(state: RolloutState, delta: Sequence[Counts]) -> RolloutState:
    """Add what was counted since the last call; without effect once the verdict is out.

    Parameters
    ----------
    delta : one entry per step, by whose weight the requests were split; the steps that follow may be missing.

    Raises
    ------
    InvalidCounts
        There are counts of a step that has not begun.
    """
    if not state.phase.is_judged:
        return state
    if len(delta) > len(state.steps):
        raise InvalidCounts(f"counts of step {len(delta)} came in while the rollout is at step {len(state.steps)}")
    totals = [before + more for before, more in zip_longest(state.counts, delta, fillvalue=Counts())]
    steps = zip(state.steps, totals, strict=True)
    return replace(state, steps=tuple(replace(step, counts=total) for step, total in steps))


def decide(state: RolloutState, now: datetime) -> Decision:
    """Judge the rollout as it stands; changes nothing, so it may be asked at any time and as often as one likes.

    Abort: a guard's e-value reached its limit. Step: the step's least time has passed and all its claims pass, and
    there is a further one. Promote (or await approval, where the policy asks for a person): the same at the last
    step. Inconclusive: neither by `policy.max_minutes`. In an A/B test the last step ends when its time is over, and
    a person has the comparison to go by: `release.ab`.

    The error rates hold over the whole rollout, whatever its ladder: the guards' alpha by their e-processes, which
    run on over all steps and while a verdict waits to be carried out; a promotion's by the last step's bounds.

    Raises
    ------
    ValueError
        `now` has no time zone.
    """
    now = _utc(now)
    if not state.phase.is_judged:
        return _decided(state)
    guards = judge_guards(state.counts, state.policy)
    step_seconds = _seconds_since(state.steps[-1], now)
    if state.holds:
        claims = guards + judge_hold(state.counts[-1], state.step, state.policy, step_seconds)
    else:
        claims = guards + judge_promotion(state.counts[-1], state.step, state.policy, step_seconds, guards)
    tripped = [claim for claim in guards if claim.verdict is Verdict.FAIL]
    if tripped:
        return Decision("abort", f"{tripped[0].name}: {tripped[0].message}", claims)
    if state.phase is Phase.PROGRESSING:
        return _decide_hold(state, claims, now) if state.holds else _decide_progress(state, claims, now)
    action: Action = "await_approval" if state.phase is Phase.WAITING_PROMOTION else "promote"
    return Decision(action, state.reason, claims, 0.0, _reported(state))


def advance(state: RolloutState, now: datetime) -> RolloutState:
    """Carry out `decide`: the step or phase that follows from it. Idempotent at the same counts and time."""
    phases = {
        "step": Phase.PROGRESSING,
        "await_approval": Phase.WAITING_PROMOTION,
        "promote": Phase.PROMOTING,
        "abort": Phase.FAILED,
        "inconclusive": Phase.INCONCLUSIVE,
    }
    decision = decide(state, now)
    if not state.phase.is_judged or decision.action not in phases:
        return state
    phase = phases[decision.action]
    if phase is state.phase and decision.action != "step":
        return state
    advanced = _judged(replace(state, phase=phase), decision, _utc(now))
    if decision.action == "step":
        return replace(advanced, steps=(*state.steps, StepState(_utc(now))))
    return advanced


def seal(state: RolloutState, approval: Approval | None = None) -> tuple[RolloutState, str]:
    """Ask for the right to move the alias: "sealed", or "aborted: why", or "not ready: why" while it is judged.

    Where the policy asks for a person, `approval` says who agreed and when: a word given before there was anything to
    agree to, such as in an earlier rollout of the same version, does not count. Once sealed, a rollout cannot be
    stopped any more, save by `withdraw`; asking again gives the same answer.
    """
    if state.phase in (Phase.SEALED, Phase.SUCCEEDED):
        return state, SEAL_GRANTED
    if state.phase is Phase.PROMOTING:
        return replace(state, phase=Phase.SEALED), SEAL_GRANTED
    if state.waits_since is not None and approval is not None:
        if approval.at < state.waits_since:
            stale = f"the approval of {approval.by} is of {approval.at.isoformat()}, before it was judged"
            return state, f"not ready: {stale} ({state.waits_since.isoformat()}); approve it again"
        return replace(state, phase=Phase.SEALED, approval=approval), SEAL_GRANTED
    if state.phase.is_terminal:
        return state, f"aborted: {state.reason}"
    return state, f"not ready: the rollout is {state.phase.value}: {state.reason}"


def succeed(state: RolloutState) -> RolloutState:
    """The alias has moved and the version is stable now; only a sealed rollout can get here."""
    return replace(state, phase=Phase.SUCCEEDED) if state.phase is Phase.SEALED else state


def abort(state: RolloutState, reason: str, now: datetime) -> RolloutState:
    """Stop it, for a reason other than its counts; without effect once sealed or over."""
    return state if state.phase is Phase.SEALED else withdraw(state, reason, now)


def withdraw(state: RolloutState, reason: str, now: datetime) -> RolloutState:
    """The registry went another way, which ends even a sealed rollout; without effect once over."""
    if state.phase.is_terminal:
        return state
    return _judged(replace(state, phase=Phase.FAILED), Decision("abort", reason), _utc(now))


def replay(state: RolloutState) -> list[tuple[Judgement, Decision]]:
    """Every recorded judgement that came from counts, beside what `decide` says to the same evidence.

    They agree in action and reason unless the record, or the rules, were changed.

    Examples
    --------
    >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> state = ready(start(model="m", version=2, stable_version=1, policy=CanarySpec(), now=noon), noon)
    >>> state = advance(observe(state, [Counts(canary=ArmCounts(requests=9, failures=9))]), noon)
    >>> [(judgement.action, decision.action) for judgement, decision in replay(state)]
    [('abort', 'abort')]
    """
    judged = [judgement for judgement in state.history if judgement.claims]
    return [
        (judgement, decide(replace(state, phase=Phase.PROGRESSING, steps=judgement.steps), judgement.at))
        for judgement in judged
    ]


def _decided(state: RolloutState) -> Decision:
    """What holds where counts change nothing: before the start, and once the verdict is out."""
    said: dict[Phase, Action] = {
        Phase.FAILED: "abort",
        Phase.INCONCLUSIVE: "inconclusive",
        Phase.SEALED: "promote",
        Phase.SUCCEEDED: "promote",
    }
    if state.phase in said:
        claims = state.history[-1].claims if state.history else ()
        return Decision(said[state.phase], state.reason, claims, comparison=_reported(state))
    rate = state.requests_per_second
    expected = None if rate is None else seconds_to_promotion((), state.policy, 0.0, 0.0, rate)
    return Decision("continue", state.reason, expected_seconds_to_verdict=expected)


def _decide_progress(state: RolloutState, claims: tuple[Claim, ...], now: datetime) -> Decision:
    open_claims = [claim for claim in claims if claim.name.startswith("promotion.") and not claim.verdict.ok]
    if not open_claims and state.is_last_step:
        return _fit(state, claims, now)
    # What no further waiting mends is the most telling reason; after that, the claims in their order.
    telling = sorted(open_claims, key=lambda claim: claim.verdict is Verdict.INSUFFICIENT_DATA)
    if state.counts[-1].canary.requests == 0:
        telling.sort(key=lambda claim: claim.name != "promotion.success")
    if _seconds_since(state.steps[0], now) >= state.policy.max_minutes * 60:
        why = telling[0].message if telling else f"the canary has only come to {state.step}"
        reason = f"no verdict within {state.policy.max_minutes:g} minutes, the stable version stays: {why}"
        return Decision("inconclusive", reason, claims)
    if not telling:
        onward = ladder(state.policy)[len(state.steps)]
        return Decision("step", f"{_passed(state, now)}; the canary takes {onward}", claims, _expected(state, now))
    return Decision("continue", telling[0].message, claims, _expected(state, now))


def _decide_hold(state: RolloutState, claims: tuple[Claim, ...], now: datetime) -> Decision:
    """An A/B test is over when its time is, whatever was seen by then: its intervals are for that one look."""
    left = max(0.0, state.step.minutes * 60 - _seconds_since(state.steps[-1], now))
    counts, hours = state.counts[-1], state.policy.ab_hours
    comparison = Comparison(left == 0, compare(counts, state.policy))
    if left:
        reason = f"{state.step} are held for {hours:g} hours, whatever the comparison says; harm stops it at any moment"
        return Decision("continue", reason, claims, left, comparison)
    (split,) = (claim for claim in claims if claim.name == "promotion.sample_ratio")
    lacking = [arm for arm, seen in (("stable", counts.stable), ("canary", counts.canary)) if not seen.requests]
    if lacking or not split.verdict.ok:
        why = f"there was no request of the {' and '.join(lacking)} arm" if lacking else split.message
        reason = f"nothing to compare after {hours:g} hours, the stable version stays: {why}"
        return Decision("inconclusive", reason, claims, comparison=comparison)
    found = "; ".join(f"{difference.name} {difference.message}" for difference in comparison.differences)
    reason = (
        f"{state.step} were held for {hours:g} hours. Canary against stable: {found}. Waits for a person: "
        f"mlops approve {state.version} --by NAME --model {state.model}, or "
        f"mlops canary abort {state.version} --reason WHY --model {state.model}"
    )
    return Decision("await_approval", reason, claims, 0.0, comparison)


def _reported(state: RolloutState) -> Comparison | None:
    """What an A/B test had shown at its end; labels that came later change nothing of it."""
    return next((judged.comparison for judged in reversed(state.history) if judged.comparison), None)


def _fit(state: RolloutState, claims: tuple[Claim, ...], now: datetime) -> Decision:
    requests = state.total.canary.requests
    minutes = _seconds_since(state.steps[0], now) / 60
    reason = f"fit for promotion after {minutes:.1f} minutes and {requests} canary requests"
    if state.policy.approval == "manual":
        waits = f"{reason}; waits for a person: mlops approve {state.version} --by NAME --model {state.model}"
        return Decision("await_approval", waits, claims, 0.0)
    return Decision("promote", reason, claims, 0.0)


def _passed(state: RolloutState, now: datetime) -> str:
    counts = state.counts[-1]
    minutes = _seconds_since(state.steps[-1], now) / 60
    passed = f"{state.step} passed after {minutes:.1f} minutes and {counts.canary.requests} canary requests"
    if counts.compared:
        passed += f", {counts.agreed / counts.compared:.1%} of {counts.compared} answered as the stable version did"
    return passed


def _expected(state: RolloutState, now: datetime) -> float | None:
    step_seconds = _seconds_since(state.steps[-1], now)
    canary = state.counts[-1].canary.requests
    if canary and step_seconds:
        rate = canary / step_seconds / state.step.weight
    elif state.requests_per_second is not None:
        rate = state.requests_per_second
    else:
        return None
    return seconds_to_promotion(state.counts, state.policy, _seconds_since(state.steps[0], now), step_seconds, rate)


def _judged(state: RolloutState, decision: Decision, now: datetime) -> RolloutState:
    judgement = Judgement(now, decision.action, decision.reason, decision.claims, state.steps, decision.comparison)
    return replace(state, reason=decision.reason, history=(*state.history, judgement))


def _seconds_since(step: StepState, now: datetime) -> float:
    return max(0.0, (now - step.started_at).total_seconds())


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; pass an aware datetime, e.g. datetime.now(UTC)")
    return moment.astimezone(UTC)
