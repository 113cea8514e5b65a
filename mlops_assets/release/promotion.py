"""What a canary must show before it may be promoted: time, bounds that clear the limits, a sound split.

Bounds, not point estimates, so that too little traffic never passes because it is little. It judges
counts and elapsed time; stopping is left to the guards, phases to the rollout.
"""

from __future__ import annotations

import math

from mlops_assets.release.claim import Claim
from mlops_assets.release.counts import Counts
from mlops_assets.release.guards import MAX_SLOW_SHARE
from mlops_assets.release.sequential import log_e_sample_ratio, trials_needed, upper_bound
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
    counts: Counts, policy: CanarySpec, elapsed_seconds: float, guards: tuple[Claim, ...]
) -> tuple[Claim, ...]:
    """Every claim that a promotion rests on; it may go ahead when all of them pass.

    The bounds are those of Clopper and Pearson at `policy.confidence` for one look. Looking on until the cap
    raises the chance to promote a canary that lies exactly at its limit; one at 1.5 times the limit is promoted
    in less than 1 % of rollouts (simulated in the tests).
    """
    return (
        _time(policy, elapsed_seconds),
        _success(counts, policy),
        _latency(counts, policy),
        _sample_ratio(counts, policy),
        _calm(guards),
    )


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
    counts: Counts, policy: CanarySpec, elapsed_seconds: float, canary_requests_per_second: float
) -> float:
    """Seconds until a verdict at the present rates: until all claims can pass, or else until the cap.

    >>> seconds_to_promotion(Counts(), CanarySpec(), 0.0, 1.0)
    1800.0
    """
    until_cap = max(0.0, policy.max_minutes * 60 - elapsed_seconds)
    needed = requests_needed(counts, policy)
    if needed is None or canary_requests_per_second <= 0:
        return until_cap
    missing = max(0, needed - counts.canary.requests)
    return min(until_cap, max(policy.minutes * 60 - elapsed_seconds, missing / canary_requests_per_second, 0.0))


def _time(policy: CanarySpec, elapsed_seconds: float) -> Claim:
    minutes = elapsed_seconds / 60
    verdict = Verdict.PASS if minutes >= policy.minutes else Verdict.INSUFFICIENT_DATA
    message = f"{minutes:.1f} of at least {policy.minutes:g} minutes have passed"
    return Claim("promotion.time", verdict, minutes, policy.minutes, 0, None, message)


def _success(counts: Counts, policy: CanarySpec) -> Claim:
    canary = counts.canary
    bound = 1.0 - float(upper_bound(canary.failures, canary.requests, policy.confidence))
    needed = trials_needed(canary.failures / max(canary.requests, 1), 1.0 - policy.min_success, policy.confidence)
    message = (
        f"success rate is at least {bound:.2%} ({policy.confidence:.0%} confidence; {canary.failures} failures in "
        f"{canary.requests} requests); must exceed {policy.min_success:.2%}{_wanting(needed, canary.requests)}"
    )
    verdict = _bound_verdict(bound > policy.min_success, needed)
    return Claim("promotion.success", verdict, bound, policy.min_success, canary.requests, needed, message)


def _latency(counts: Counts, policy: CanarySpec) -> Claim:
    stable, canary = counts.stable, counts.canary
    bound = float(upper_bound(canary.slow, canary.requests, policy.confidence))
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


def _sample_ratio(counts: Counts, policy: CanarySpec) -> Claim:
    """H0: the split gives the canary its weight, over customers where they were counted, else over requests."""
    stable, canary = counts.stable, counts.canary
    if stable.entities + canary.entities:
        unit, tolerance, mine, total = "customers", _ENTITY_TOLERANCE, canary.entities, stable.entities
    else:
        unit, tolerance, mine, total = "requests", _REQUEST_TOLERANCE, canary.requests, stable.requests
    total += mine
    e_value, limit = math.exp(log_e_sample_ratio(mine, total, policy.weight, tolerance)), 1 / _SAMPLE_RATIO_ALPHA
    share = f"{mine / total:.1%}" if total else "none"
    message = f"the canary has {share} of {total} {unit}, {policy.weight:.1%} were meant (e = {e_value:.3g})"
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
    message = f"{worst.name} has evidence against the canary, not yet enough to stop it: {worst.message}"
    return Claim("promotion.calm", Verdict.INSUFFICIENT_DATA, value, HOLDING_E_VALUE, worst.rows, None, message)


def _bound_verdict(cleared: bool, needed: int | None) -> Verdict:
    if cleared:
        return Verdict.PASS
    return Verdict.FAIL if needed is None else Verdict.INSUFFICIENT_DATA


def _wanting(needed: int | None, seen: int) -> str:
    if needed is None:
        return ", which this rate never reaches"
    return f", about {needed} requests are needed" if needed > seen else ""
