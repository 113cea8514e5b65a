"""The guards that may stop a canary at any moment, each an e-process against the concurrent stable arm.

alpha is split over the guards, so that a canary that is no worse than the stable arm (and within its floor)
is stopped with probability at most alpha, however often one looks, however the rates of both arms vary over
the day, and over all steps of the ladder together. It judges counts; phases and time are left to the rollout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np

from mlops_assets.release.claim import Claim
from mlops_assets.release.counts import ArmCounts, Counts
from mlops_assets.release.ladder import ladder
from mlops_assets.release.sequential import anytime_upper_bound, log_e_from_each
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


@dataclass(frozen=True)
class Seen:
    """What was counted at one step, beside the share of customers that the canary had there."""

    weight: float
    stable: Arm
    canary: Arm


def judge_guards(counts: Sequence[Counts], policy: CanarySpec) -> tuple[Claim, ...]:
    """Every guard's claim: ``FAIL`` from where its e-value reaches its limit, 1 / (its part of alpha).

    Parameters
    ----------
    counts : one entry per step entered so far, at least one.
    """
    return tuple(_claim(guard, counts, policy) for guard in GUARDS)


def log_e_value(guard: str, steps: Sequence[Seen], policy: CanarySpec) -> Any:
    """Log e-value of one guard over all steps so far: the mean of the e-processes that begin at each step.

    A canary may be bad from the start, or only under the load of a later step. The e-process that begins at step k
    multiplies the evidence of step k and of all later ones, each judged at its own step's share, and is 1 before
    step k; so evidence is never forgotten, and a good start does not hide a bad end. The mean of e-processes is
    one (linearity of expectation; compare Shin, Ramdas and Rinaldo, "E-detectors", 2022), so that the limit
    1 / alpha holds over the whole ladder under continuous looks; it costs at most a factor of the ladder's length.
    """
    begun = GUARDS[guard](steps, policy)
    every = begun + [np.zeros(())] * (len(ladder(policy)) - len(begun))
    return reduce(np.logaddexp, every) - math.log(len(every))


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


def log_e_failures(steps: Sequence[Seen], policy: CanarySpec) -> list[Any]:  # noqa: ARG001 (one signature)
    """H0: a failure falls to the canary with at most its share of requests at that step, whatever came before."""
    return _log_e_relative(steps, "failures", 1.0)


def log_e_success_floor(steps: Sequence[Seen], policy: CanarySpec) -> list[Any]:
    """H0: the canary's failure rate is at most 1 - min_success."""
    return _log_e_absolute(steps, "failures", 1.0 - policy.min_success)


def log_e_slow(steps: Sequence[Seen], policy: CanarySpec) -> list[Any]:
    """H0: the canary's slow share is within 1 %, or within `max_slow_ratio` times the concurrent stable arm's.

    Against a union of nulls the smaller of the two e-values is one: a busy machine slows both arms, and is no
    reason to stop; nor is a canary that is slower and still within the limit.
    """
    relative = _log_e_relative(steps, "slow", policy.max_slow_ratio)
    absolute = _log_e_absolute(steps, "slow", MAX_SLOW_SHARE)
    return [_BURST_POWER * np.minimum(*both) for both in zip(relative, absolute, strict=True)]


def log_e_wrong(steps: Sequence[Seen], policy: CanarySpec) -> list[Any]:
    """H0: at each step the canary is wrong at most `max_accuracy_loss` more often than the stable arm beside it.

    The stable arm's rate at a step is replaced by an upper bound that holds at all sample sizes at once; the errors
    of these bounds, one per step, are part of this guard's alpha. Steps are kept apart because the messages may
    get harder while the weight rises: pooled, an equal canary would look worse.
    """
    spent = policy.alpha * ALPHA_SHARES["wrong"] * BASELINE_PART / len(ladder(policy))
    baselines = (anytime_upper_bound(seen.stable.wrong, seen.stable.judged, spent) for seen in steps)
    allowed = (np.minimum(1.0, baseline + policy.max_accuracy_loss) for baseline in baselines)
    return log_e_from_each([(s.canary.wrong, s.canary.judged, most) for s, most in zip(steps, allowed, strict=True)])


def stopping_limit(guard: str, policy: CanarySpec) -> float:
    """The e-value from which `guard` stops a canary.

    >>> round(stopping_limit("failures", CanarySpec()))
    40
    """
    spent = BASELINE_PART if guard == "wrong" else 0.0
    return 1.0 / (policy.alpha * ALPHA_SHARES[guard] * (1.0 - spent))


# Each gives the logarithms of the e-values that begin at each step, the first one first.
GUARDS: dict[str, Callable[[Sequence[Seen], CanarySpec], list[Any]]] = {
    "failures": log_e_failures,
    "success_floor": log_e_success_floor,
    "slow": log_e_slow,
    "wrong": log_e_wrong,
}


def _log_e_relative(steps: Sequence[Seen], event: str, ratio: float) -> list[Any]:
    """H0: among these events of both arms, one falls to the canary with at most its null share at that step."""
    strata = []
    for seen in steps:
        mine, other = getattr(seen.canary, event), getattr(seen.stable, event)
        share = null_share(seen.stable.requests, seen.canary.requests, seen.weight, ratio)
        strata.append((mine, mine + other, share))
    return log_e_from_each(strata)


def _log_e_absolute(steps: Sequence[Seen], event: str, null_rate: float) -> list[Any]:
    """H0: of the canary's requests, such an event befalls at most `null_rate`."""
    return log_e_from_each([(getattr(seen.canary, event), seen.canary.requests, null_rate) for seen in steps])


def _claim(guard: str, counts: Sequence[Counts], policy: CanarySpec) -> Claim:
    climbed = zip(ladder(policy), counts, strict=False)  # fewer counts than steps: the others are yet to come
    steps = [Seen(step.weight, at.stable, at.canary) for step, at in climbed]
    e_value, limit = math.exp(float(log_e_value(guard, steps, policy))), stopping_limit(guard, policy)
    total = sum(counts, Counts())
    rows = total.canary.judged if guard == "wrong" else total.canary.requests
    verdict = Verdict.FAIL if e_value >= limit else Verdict.PASS if rows else Verdict.INSUFFICIENT_DATA
    message = (
        f"{_describe(guard, total.stable, total.canary, policy)}; evidence e = {e_value:.3g}, stops at {limit:.0f}"
    )
    return Claim(f"guard.{guard}", verdict, e_value, limit, rows, None, message)


def _describe(guard: str, stable: ArmCounts, canary: ArmCounts, policy: CanarySpec) -> str:
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
