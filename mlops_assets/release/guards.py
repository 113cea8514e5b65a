"""The guards that may stop a canary at any moment, each an e-process against the concurrent stable arm.

alpha is split over the guards, so that a canary that is no worse than the stable arm (and within its floor)
is stopped with probability at most alpha, however often one looks and however the rates of both arms vary
over the day. It judges counts; phases and time are left to the rollout.
"""

from __future__ import annotations

import math

import numpy as np

from mlops_assets.release.claim import Claim
from mlops_assets.release.counts import ArmCounts, Counts
from mlops_assets.release.sequential import anytime_upper_bound, log_e_rate, log_e_share
from mlops_assets.spec import CanarySpec
from mlops_assets.verdict import Verdict

ALPHA_SHARES = {"failures": 0.5, "success_floor": 0.2, "slow": 0.15, "wrong": 0.15}
MAX_SLOW_SHARE = 0.01
"""P(latency above the limit) that a p99 limit allows."""

# Slow answers come in bursts (a pause delays all requests in flight). Raising an e-value to this power keeps it
# one, by Jensen's inequality, and halves the weight of each slow answer: as if they came in pairs.
_BURST_POWER = 0.5
# Of the wrong-answer guard's alpha, the part spent on bounding the stable arm's own rate.
_BASELINE_PART = 1 / 3


def judge_guards(counts: Counts, policy: CanarySpec) -> tuple[Claim, ...]:
    """Every guard's claim: ``FAIL`` from where its e-value reaches its limit, 1 / (its part of alpha)."""
    return (_failures(counts, policy), _success_floor(counts, policy), _slow(counts, policy), _wrong(counts, policy))


def null_share(stable: int, canary: int, weight: float, ratio: float) -> float:
    """The largest share of the events that the canary may have while it is at most `ratio` times as prone to them.

    The larger of its declared and its realised share of requests counts: customers differ in how much they
    ask, and a larger null only errs on the quiet side.

    >>> round(null_share(900, 100, 0.1, 1.0), 3), round(null_share(900, 100, 0.1, 2.0), 3)
    (0.1, 0.182)
    """
    total = stable + canary
    share = max(weight, canary / total if total else 0.0)
    return share * ratio / (1.0 - share + share * ratio)


def _failures(counts: Counts, policy: CanarySpec) -> Claim:
    """H0: a failure falls to the canary with at most its share of requests, whatever came before."""
    stable, canary = counts.stable, counts.canary
    null = null_share(stable.requests, canary.requests, policy.weight, 1.0)
    log_e = float(log_e_share(canary.failures, canary.failures + stable.failures, null))
    text = f"{_rate(canary, 'failures')} requests failed in the canary, {_rate(stable, 'failures')} in the stable arm"
    return _guard("failures", log_e, policy.alpha * ALPHA_SHARES["failures"], canary.requests, text)


def _success_floor(counts: Counts, policy: CanarySpec) -> Claim:
    """H0: the canary's failure rate is at most 1 - min_success."""
    canary = counts.canary
    log_e = float(log_e_rate(canary.failures, canary.requests, 1.0 - policy.min_success))
    text = f"{_rate(canary, 'failures')} requests failed in the canary, {1 - policy.min_success:.2%} are allowed"
    return _guard("success_floor", log_e, policy.alpha * ALPHA_SHARES["success_floor"], canary.requests, text)


def _slow(counts: Counts, policy: CanarySpec) -> Claim:
    """H0: the canary's slow share is within 1 %, or within `max_slow_ratio` times the concurrent stable arm's.

    Against a union of nulls the smaller of the two e-values is one: a busy machine slows both arms, and is no
    reason to stop; nor is a canary that is slower and still within the limit.
    """
    stable, canary = counts.stable, counts.canary
    null = null_share(stable.requests, canary.requests, policy.weight, policy.max_slow_ratio)
    relative = log_e_share(canary.slow, canary.slow + stable.slow, null)
    absolute = log_e_rate(canary.slow, canary.requests, MAX_SLOW_SHARE)
    text = (
        f"{_rate(canary, 'slow')} answers took over {policy.max_p99_ms:g} ms in the canary, "
        f"{_rate(stable, 'slow')} in the stable arm"
    )
    log_e = _BURST_POWER * float(np.minimum(relative, absolute))
    return _guard("slow", log_e, policy.alpha * ALPHA_SHARES["slow"], canary.requests, text)


def _wrong(counts: Counts, policy: CanarySpec) -> Claim:
    """H0: the canary is wrong at most `max_accuracy_loss` more often than the stable arm at the same time.

    The stable arm's rate is replaced by an upper bound that holds at all sample sizes at once; its error is
    part of this guard's alpha.
    """
    stable, canary = counts.stable, counts.canary
    alpha = policy.alpha * ALPHA_SHARES["wrong"]
    baseline = anytime_upper_bound(stable.wrong, stable.judged, alpha * _BASELINE_PART)
    log_e = float(log_e_rate(canary.wrong, canary.judged, min(1.0, baseline + policy.max_accuracy_loss)))
    text = (
        f"{canary.wrong} of {canary.judged} judged answers were wrong in the canary, "
        f"{stable.wrong} of {stable.judged} in the stable arm"
    )
    return _guard("wrong", log_e, alpha * (1.0 - _BASELINE_PART), canary.judged, text)


def _guard(name: str, log_e: float, alpha: float, rows: int, text: str) -> Claim:
    e_value, limit = math.exp(log_e), 1.0 / alpha
    verdict = Verdict.FAIL if e_value >= limit else Verdict.PASS if rows else Verdict.INSUFFICIENT_DATA
    message = f"{text}; evidence e = {e_value:.3g}, stops at {limit:.0f}"
    return Claim(f"guard.{name}", verdict, e_value, limit, rows, None, message)


def _rate(arm: ArmCounts, what: str) -> str:
    return f"{getattr(arm, what)} of {arm.requests}"
