"""The guards that may stop a canary at any moment, each an e-process against the concurrent stable arm.

alpha is split over the guards, so that a canary that is no worse than the stable arm (and within its floor)
is stopped with probability at most alpha, however often one looks and however the rates of both arms vary
over the day. It judges counts; phases and time are left to the rollout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from mlops_assets.release.claim import Claim
from mlops_assets.release.counts import Counts
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
BASELINE_PART = 1 / 3


class Arm(Protocol):
    """One arm's totals: numbers, or arrays of one shape with a total per simulated rollout."""

    @property
    def requests(self) -> Any: ...
    @property
    def failures(self) -> Any: ...
    @property
    def slow(self) -> Any: ...
    @property
    def judged(self) -> Any: ...
    @property
    def wrong(self) -> Any: ...


def judge_guards(counts: Counts, policy: CanarySpec) -> tuple[Claim, ...]:
    """Every guard's claim: ``FAIL`` from where its e-value reaches its limit, 1 / (its part of alpha)."""
    return tuple(_claim(guard, counts, policy) for guard in GUARDS)


def null_share(stable: Any, canary: Any, weight: float, ratio: float) -> Any:
    """The largest share of the events that the canary may have while it is at most `ratio` times as prone to them.

    The larger of its declared and its realised share of requests counts: customers differ in how much they
    ask, and a larger null only errs on the quiet side.

    >>> round(float(null_share(900, 100, 0.1, 1.0)), 3), round(float(null_share(900, 100, 0.1, 2.0)), 3)
    (0.1, 0.182)
    """
    mine = np.asarray(canary, float)
    share = np.maximum(weight, mine / np.maximum(mine + stable, 1.0))
    return share * ratio / (1.0 - share + share * ratio)


def log_e_failures(stable: Arm, canary: Arm, policy: CanarySpec) -> Any:
    """H0: a failure falls to the canary with at most its share of requests, whatever came before."""
    null = null_share(stable.requests, canary.requests, policy.weight, 1.0)
    return log_e_share(canary.failures, canary.failures + stable.failures, null)


def log_e_success_floor(stable: Arm, canary: Arm, policy: CanarySpec) -> Any:  # noqa: ARG001 (one signature)
    """H0: the canary's failure rate is at most 1 - min_success."""
    return log_e_rate(canary.failures, canary.requests, 1.0 - policy.min_success)


def log_e_slow(stable: Arm, canary: Arm, policy: CanarySpec) -> Any:
    """H0: the canary's slow share is within 1 %, or within `max_slow_ratio` times the concurrent stable arm's.

    Against a union of nulls the smaller of the two e-values is one: a busy machine slows both arms, and is no
    reason to stop; nor is a canary that is slower and still within the limit.
    """
    null = null_share(stable.requests, canary.requests, policy.weight, policy.max_slow_ratio)
    relative = log_e_share(canary.slow, canary.slow + stable.slow, null)
    absolute = log_e_rate(canary.slow, canary.requests, MAX_SLOW_SHARE)
    return _BURST_POWER * np.minimum(relative, absolute)


def log_e_wrong(stable: Arm, canary: Arm, policy: CanarySpec) -> Any:
    """H0: the canary is wrong at most `max_accuracy_loss` more often than the stable arm at the same time.

    The stable arm's rate is replaced by an upper bound that holds at all sample sizes at once; its error is
    part of this guard's alpha.
    """
    baseline = anytime_upper_bound(stable.wrong, stable.judged, policy.alpha * ALPHA_SHARES["wrong"] * BASELINE_PART)
    return log_e_share(canary.wrong, canary.judged, np.minimum(1.0, baseline + policy.max_accuracy_loss))


def stopping_limit(guard: str, policy: CanarySpec) -> float:
    """The e-value from which `guard` stops a canary.

    >>> round(stopping_limit("failures", CanarySpec()))
    40
    """
    spent = BASELINE_PART if guard == "wrong" else 0.0
    return 1.0 / (policy.alpha * ALPHA_SHARES[guard] * (1.0 - spent))


GUARDS: dict[str, Callable[[Arm, Arm, CanarySpec], Any]] = {
    "failures": log_e_failures,
    "success_floor": log_e_success_floor,
    "slow": log_e_slow,
    "wrong": log_e_wrong,
}


def _claim(guard: str, counts: Counts, policy: CanarySpec) -> Claim:
    e_value, limit = math.exp(float(GUARDS[guard](counts.stable, counts.canary, policy))), stopping_limit(guard, policy)
    rows = counts.canary.judged if guard == "wrong" else counts.canary.requests
    verdict = Verdict.FAIL if e_value >= limit else Verdict.PASS if rows else Verdict.INSUFFICIENT_DATA
    message = f"{_describe(guard, counts, policy)}; evidence e = {e_value:.3g}, stops at {limit:.0f}"
    return Claim(f"guard.{guard}", verdict, e_value, limit, rows, None, message)


def _describe(guard: str, counts: Counts, policy: CanarySpec) -> str:
    stable, canary = counts.stable, counts.canary
    if guard == "wrong":
        return (
            f"{canary.wrong} of {canary.judged} judged answers were wrong in the canary, "
            f"{stable.wrong} of {stable.judged} in the stable arm"
        )
    if guard == "slow":
        return (
            f"{canary.slow} of {canary.requests} answers took over {policy.max_p99_ms:g} ms in the canary, "
            f"{stable.slow} of {stable.requests} in the stable arm"
        )
    failed = f"{canary.failures} of {canary.requests} requests failed in the canary"
    if guard == "success_floor":
        return f"{failed}, {1 - policy.min_success:.2%} are allowed"
    return f"{failed}, {stable.failures} of {stable.requests} in the stable arm"
