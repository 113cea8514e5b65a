"""What a canary must show at each step before it goes on: time, bounds that clear the limits, a sound split.

Bounds, not point estimates, so that too little traffic never passes because it is little. It judges one
step's counts and time; stopping is left to the guards, phases to the rollout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlops_assets.release.claim import Claim
from mlops_assets.release.counts import Counts
from mlops_assets.release.guards import MAX_SLOW_SHARE, Arm
from mlops_assets.release.ladder import Step, ladder
from mlops_assets.release.sequential import log_e_sample_ratio, lower_bound, trials_needed, upper_bound
from mlops_assets.spec import CanarySpec
from mlops_assets.verdict import Verdict

# A guard with an e-value from here on keeps a canary waiting, though it does not stop it yet.
HOLDING_E_VALUE = 10.0
_SAMPLE_RATIO_ALPHA = 0.001
_ENTITY_TOLERANCE = 1.1
# Where customers were not counted: a few busy ones move the share of requests by themselves, so that only a split
# that is out of all proportion can be told.
_REQUEST_TOLERANCE = 5.0


def judge_promotion(
    counts: Counts, step: Step, policy: CanarySpec, elapsed_seconds: float, guards: tuple[Claim, ...]
) -> tuple[Claim, ...]:
    """Every claim that going on from a step rests on; the rollout goes on when all of them pass.

    Each step must prove them anew, from its own counts and time: what holds under a small share of the load need not
    hold under a larger one. A version is promoted only if it passes the last step, so the chance to promote a bad
    one is at most that of the last step alone, however many steps there are. There the bounds are those of Clopper
    and Pearson at `policy.confidence` for one look: at 0.95 a canary exactly at its limit passes one look with
    probability 5 %. Looking on until the cap makes that about 22 %; one at 1.5 times the limit is promoted in less
    than 3 % of rollouts at 1 request per second and 1 % at 10, one at twice the limit in less than 1 % (simulated in
    the tests and in docs/rollout_simulation.md).

    Parameters
    ----------
    counts, elapsed_seconds : of this step alone.
    guards : the guards' claims, which rest on all steps.
    """
    return (
        _time(step, elapsed_seconds),
        _success(counts, policy),
        _latency(counts, policy),
        _sample_ratio(counts, step, policy),
        _calm(guards),
    )


def judge_hold(counts: Counts, step: Step, policy: CanarySpec, elapsed_seconds: float) -> tuple[Claim, ...]:
    """The claims that an A/B test's end rests on: its time is over, and the split is the one that was declared.

    Parameters
    ----------
    counts, elapsed_seconds : of the step that is held.
    """
    return _time(step, elapsed_seconds), _sample_ratio(counts, step, policy)


def success_bound(canary: Arm, policy: CanarySpec) -> Any:
    """Lower bound of the canary's success rate."""
    return lower_bound(canary.requests - canary.failures, canary.requests, policy.confidence)


def slow_bound(canary: Arm, policy: CanarySpec) -> Any:
    """Upper bound of the share of the canary's answers that are late."""
    return upper_bound(canary.slow, canary.requests, policy.confidence)


def requests_needed(counts: Counts, policy: CanarySpec) -> int | None:
    """Canary requests at which success and latency could pass at the rates seen so far; None: never.

    >>> requests_needed(Counts(), CanarySpec())
    299
    """
    canary = counts.canary
    seen = max(canary.requests, 1)
    success = trials_needed(canary.failures / seen, 1.0 - policy.min_success, policy.confidence)
    latency = trials_needed(canary.slow / seen, MAX_SLOW_SHARE, policy.confidence)
    return None if success is None or latency is None else max(success, latency)


def seconds_to_promotion(
    counts: Sequence[Counts],
    policy: CanarySpec,
    elapsed_seconds: float,
    step_seconds: float,
    requests_per_second: float,
) -> float:
    """Seconds until a verdict at the present rates: until this step and all later ones can pass, or else the cap.

    The step that an A/B test holds takes its time, whatever the rates.

    Parameters
    ----------
    counts : one entry per step entered so far; none before the start.
    elapsed_seconds, step_seconds : since the rollout began, since the present step began.
    requests_per_second : to both arms together.

    Examples
    --------
    >>> seconds_to_promotion([], CanarySpec(), 0.0, 0.0, 10.0)
    1800.0
    >>> seconds_to_promotion([], CanarySpec(weights=(0.05, 0.5)), 0.0, 0.0, 1.0)
    7780.0
    """
    now, *later = ladder(policy)[max(len(counts) - 1, 0) :]
    if policy.ab_hours and not later:
        return max(0.0, now.minutes * 60 - step_seconds)
    hold = later.pop().minutes * 60 if policy.ab_hours else 0.0
    until_cap = max(0.0, policy.max_minutes * 60 - elapsed_seconds)
    present = counts[-1] if counts else Counts()
    needed = requests_needed(present, policy)
    if needed is None or requests_per_second <= 0:
        return until_cap
    missing = max(0, needed - present.canary.requests)
    seconds = max(now.minutes * 60 - step_seconds, missing / (requests_per_second * now.weight), 0.0)
    seconds += sum(max(step.minutes * 60, needed / (requests_per_second * step.weight)) for step in later)
    return hold + min(until_cap, seconds)


def _time(step: Step, elapsed_seconds: float) -> Claim:
    minutes = elapsed_seconds / 60
    verdict = Verdict.PASS if minutes >= step.minutes else Verdict.INSUFFICIENT_DATA
    message = f"{minutes:.1f} of at least {step.minutes:g} minutes have passed"
    return Claim("promotion.time", verdict, minutes, step.minutes, 0, None, message)


def _success(counts: Counts, policy: CanarySpec) -> Claim:
    canary = counts.canary
    bound = float(success_bound(canary, policy))
    needed = trials_needed(canary.failures / max(canary.requests, 1), 1.0 - policy.min_success, policy.confidence)
    message = (
        f"success rate is at least {bound:.2%} ({policy.confidence:.0%} confidence; {canary.failures} failures in "
        f"{canary.requests} requests); must exceed {policy.min_success:.2%}{_wanting(needed, canary.requests)}"
    )
    verdict = _bound_verdict(bound > policy.min_success, needed)
    return Claim("promotion.success", verdict, bound, policy.min_success, canary.requests, needed, message)


def _latency(counts: Counts, policy: CanarySpec) -> Claim:
    stable, canary = counts.stable, counts.canary
    bound = float(slow_bound(canary, policy))
    needed = trials_needed(canary.slow / max(canary.requests, 1), MAX_SLOW_SHARE, policy.confidence)
    message = (
        f"at most {bound:.2%} of answers take over {policy.max_p99_ms:g} ms ({policy.confidence:.0%} confidence; "
        f"{canary.slow} in {canary.requests} requests); must be below {MAX_SLOW_SHARE:.0%}"
        f"{_wanting(needed, canary.requests)}"
    )
    if needed is None and stable.slow > MAX_SLOW_SHARE * stable.requests:
        message += (
            f"; the stable arm breaks that limit too ({stable.slow} in {stable.requests}): "
            "the machine is busy, which is no fault of the canary"
        )
    verdict = _bound_verdict(bound < MAX_SLOW_SHARE, needed)
    return Claim("promotion.latency", verdict, bound, MAX_SLOW_SHARE, canary.requests, needed, message)


def _sample_ratio(counts: Counts, step: Step, policy: CanarySpec) -> Claim:
    """H0: the split gives the canary its weight, over customers where they were counted, else over requests.

    Its error rate is split over the steps.
    """
    stable, canary = counts.stable, counts.canary
    if stable.entities + canary.entities:
        unit, tolerance, mine, total = "customers", _ENTITY_TOLERANCE, canary.entities, stable.entities
        times = max(counts.times_counted, 1)
    else:
        unit, tolerance, mine, total = "requests", _REQUEST_TOLERANCE, canary.requests, stable.requests
        times = 1
    total += mine
    e_value = math.exp(float(log_e_sample_ratio(mine, total, step.weight, tolerance, times)))
    limit = len(ladder(policy)) / _SAMPLE_RATIO_ALPHA
    share = f"{mine / total:.1%}" if total else "none"
    counted = f" (each counted up to {times} times)" if times > 1 else ""
    message = f"the canary has {share} of {total} {unit}{counted}, {step.weight:.1%} were meant (e = {e_value:.3g})"
    verdict = Verdict.PASS if total else Verdict.INSUFFICIENT_DATA
    if e_value >= limit:
        verdict = Verdict.ERROR
        message += "; the split does not work as declared, so the arms cannot be compared: mend the assignment"
    return Claim("promotion.sample_ratio", verdict, e_value, limit, total, None, message)


def _calm(guards: tuple[Claim, ...]) -> Claim:
    worst = max(guards, key=lambda claim: claim.value or 0.0)
    value = worst.value or 0.0
    if value < HOLDING_E_VALUE:
        message = f"no guard has an e-value of {HOLDING_E_VALUE:g} or more"
        return Claim("promotion.calm", Verdict.PASS, value, HOLDING_E_VALUE, worst.rows, None, message)
    message = f"goes no further while {worst.name} has evidence against the canary: {worst.message}"
    return Claim("promotion.calm", Verdict.INSUFFICIENT_DATA, value, HOLDING_E_VALUE, worst.rows, None, message)


def _bound_verdict(cleared: bool, needed: int | None) -> Verdict:
    if cleared:
        return Verdict.PASS
    return Verdict.FAIL if needed is None else Verdict.INSUFFICIENT_DATA


def _wanting(needed: int | None, seen: int) -> str:
    if needed is None:
        return ", which this rate never reaches"
    return f", about {needed} requests are needed" if needed > seen else ""
