"""What an A/B test showed: success, speed and correctness of the two arms, each difference with an interval.

Customers are assigned to the arms, and one customer's answers resemble each other, so the customer is the unit of the
intervals: answers are counted by groups of customers, too, from which the effective number of answers is told. It
compares counts; how long the split is held, and what follows from it, is the rollout's matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from mlops_assets.release.counts import ArmCounts, Counts
from mlops_assets.release.sequential import lower_bound, upper_bound
from mlops_assets.spec import CanarySpec

GROUPS = 32
"""Groups of customers in each arm: enough for a variance, few enough to be counted in every replica."""

# What is compared: share of good answers among these, which are those of `ArmCounts` less the bad ones.
_RATES = {"success": ("requests", "failures"), "in_time": ("requests", "slow"), "correct": ("judged", "wrong")}


@dataclass(frozen=True)
class Difference:
    """One rate of both arms.

    Parameters
    ----------
    name : ``success``, ``in_time`` (within the policy's `max_p99_ms`) or ``correct`` (of the answers whose label is
        known).
    stable, canary : share of good answers, 0..1; None: the arm has no such answer.
    stable_answers, canary_answers : sample sizes.
    difference, lower, upper : canary minus stable, and its interval; None: not to be told, for want of data.
    """

    name: str
    stable: float | None
    canary: float | None
    stable_answers: int
    canary_answers: int
    difference: float | None
    lower: float | None
    upper: float | None
    message: str


@dataclass(frozen=True)
class Comparison:
    """Both arms side by side.

    Parameters
    ----------
    final : made at the end of the hold. The intervals are for that one look: who looks earlier, and stops at what
        they like, is wrong more often than they say.
    """

    final: bool
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class _Rate:
    """One arm's share of bad answers with its interval."""

    value: float
    lower: float
    upper: float


def compare(counts: Counts, policy: CanarySpec) -> tuple[Difference, ...]:
    """The three differences between the arms, canary minus stable, unpaired: a customer is in one arm.

    Null of each: the arms do not differ. All three intervals hold the true differences with probability
    `policy.confidence` at least (Bonferroni), for one look at a time that was fixed beforehand; so an interval lies
    beside 0 though the arms are equal in at most (1 - confidence) / 3 of the tests. Tests that a guard stops give no
    interval, which only makes that rarer.

    Method: of each arm the interval of Korn and Graubard (Survey Methodology, 1998), that is Clopper and Pearson's with
    the effective number of answers; of the difference Zou and Donner's from those two (Statistics in Medicine, 2008).
    The tests show the rate by simulation, with customers of very different bulk and quality.

    Examples
    --------
    >>> success, in_time, correct = compare(Counts(ArmCounts(requests=900), ArmCounts(requests=100)), CanarySpec())
    >>> round(success.lower, 3), round(success.upper, 3), correct.difference is None
    (-0.047, 0.005, True)
    """
    confidence = 1.0 - (1.0 - policy.confidence) / len(_RATES)
    return tuple(_difference(name, counts, confidence) for name in _RATES)


def effective_answers(bad: NDArray[np.int64], answers: NDArray[np.int64], customers: float, confidence: float) -> float:
    """How many independent answers tell as much as these.

    The variance of the share of bad answers, from the groups as clusters, over what independent answers would have
    (Kish's design effect), taken for 1 at least. One imaginary customer more, all of whose answers are of the rarer
    kind, stands for the customers that were not met; so where no answer was bad each customer counts once. The
    correction for few groups is Korn and Graubard's.

    Parameters
    ----------
    bad, answers : by group, shape (g,).
    customers : in all groups, at least; 0: not counted.
    confidence : of the two-sided interval that it is for.

    Examples
    --------
    >>> each = np.full(32, 100)
    >>> round(effective_answers(np.zeros(32, int), each, 400, 0.95))
    359
    """
    total, met = int(answers.sum()), int(np.count_nonzero(answers))
    bulk = min(float(total), max(1.0, total / customers)) if customers else 1.0
    if met < 2:
        return total / bulk
    rarer = bad if 2 * bad.sum() <= total else answers - bad
    share = (rarer.sum() + bulk) / (total + bulk)
    squares = met / (met - 1) * np.square(rarer - share * answers).sum() + (bulk * (1.0 - share)) ** 2
    design_effect = max(1.0, float(squares / ((total + bulk) * share * (1.0 - share))))
    tail = (1.0 + confidence) / 2.0
    return total / design_effect * float(ndtri(tail) / stdtrit(met - 1, tail)) ** 2


def _difference(name: str, counts: Counts, confidence: float) -> Difference:
    whole, part = _RATES[name]
    times = max(counts.times_counted, 1)
    stable = _rate(counts.stable, [group.stable for group in counts.groups], times, whole, part, confidence)
    canary = _rate(counts.canary, [group.canary for group in counts.groups], times, whole, part, confidence)
    sizes = getattr(counts.stable, whole), getattr(counts.canary, whole)
    if stable is None or canary is None:
        lacking = " and ".join(arm for arm, rate in (("stable", stable), ("canary", canary)) if rate is None)
        message = f"insufficient data: no such answer of the {lacking} arm"
        return Difference(name, _good(stable), _good(canary), *sizes, None, None, None, message)
    # Shares of good answers are one less shares of bad ones, so that both bounds change places.
    difference = stable.value - canary.value
    lower = difference - math.hypot(stable.value - stable.lower, canary.upper - canary.value)
    upper = difference + math.hypot(stable.upper - stable.value, canary.value - canary.lower)
    message = (
        f"{1 - canary.value:.2%} on {sizes[1]} answers, {1 - stable.value:.2%} on {sizes[0]}: "
        f"{100 * difference:+.2f} points ({100 * lower:+.2f} to {100 * upper:+.2f})"
    )
    return Difference(name, _good(stable), _good(canary), *sizes, difference, lower, upper, message)


def _rate(
    total: ArmCounts, groups: Sequence[ArmCounts], times: int, whole: str, part: str, confidence: float
) -> _Rate | None:
    answers = getattr(total, whole)
    if answers == 0:
        return None
    bad, all_ = (np.array([getattr(group, name) for group in groups or [total]], np.int64) for name in (part, whole))
    share, effective = getattr(total, part) / answers, effective_answers(bad, all_, total.entities / times, confidence)
    tail = (1.0 + confidence) / 2.0
    bounds = (bound(share * effective, effective, tail) for bound in (lower_bound, upper_bound))
    return _Rate(share, *(float(bound) for bound in bounds))


def _good(rate: _Rate | None) -> float | None:
    return None if rate is None else 1.0 - rate.value
