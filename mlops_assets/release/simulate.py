"""Whole rollouts in simulation, many at once, through the guards and bounds that act: how they end, and how soon.

It is how error rates and times to a verdict are stated, in the tests and in the benchmark, and how a policy
can be tried before it is used. It draws arrivals and outcomes and climbs the ladder as `rollout.advance` does;
what the counts mean is the guards' and the bounds' to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mlops_assets.release.guards import GUARDS, MAX_SLOW_SHARE, Seen, log_e_value, stopping_limit
from mlops_assets.release.ladder import ladder
from mlops_assets.release.promotion import HOLDING_E_VALUE, slow_bound, success_bound
from mlops_assets.spec import CanarySpec

Totals = NDArray[np.int64]
Marks = NDArray[np.bool_]


@dataclass(frozen=True)
class SimulatedArm:
    """One arm of many rollouts: totals, shape (rollouts,)."""

    requests: Totals
    failures: Totals
    slow: Totals
    judged: Totals
    wrong: Totals

    def __add__(self, other: SimulatedArm) -> SimulatedArm:
        return SimulatedArm(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))

    def where(self, kept: Marks) -> SimulatedArm:
        """The totals of the rollouts that are marked, and zero for the others."""
        return SimulatedArm(*(np.where(kept, getattr(self, part.name), 0) for part in fields(self)))


Arms = tuple[SimulatedArm, SimulatedArm]


@dataclass(frozen=True)
class Rates:
    """Probabilities per request of one arm (`wrong`: per judged answer); each a number or one per look."""

    failures: float | NDArray[np.float64] = 0.0
    slow: float | NDArray[np.float64] = 0.0
    judged: float | NDArray[np.float64] = 0.0
    wrong: float | NDArray[np.float64] = 0.0

    def at(self, look: int) -> Rates:
        """The rates at one look, as numbers."""
        return Rates(*(_at(getattr(self, part.name), look) for part in fields(self)))


@dataclass(frozen=True)
class Traffic:
    """How much there is and how often one looks.

    Parameters
    ----------
    per_second : requests per second to both arms together; a number or one per look.
    """

    per_second: float | NDArray[np.float64] = 10.0
    minutes: float = 30.0
    look_every_s: float = 10.0

    @property
    def looks(self) -> int:
        """Looks in one rollout."""
        return round(self.minutes * 60 / self.look_every_s)

    def minutes_at(self, look: int) -> float:
        """Minutes since the start at look number `look`, from 0."""
        return (look + 1) * self.look_every_s / 60


@dataclass(frozen=True)
class Outcomes:
    """How each rollout ended, shape (rollouts,).

    Parameters
    ----------
    aborted_at, fit_at : minutes since the start at which it was stopped, or found fit; infinity: it was not.
    requests, failures : of the canary, until it was stopped, promoted, or the traffic ended.
    """

    aborted_at: NDArray[np.float64]
    fit_at: NDArray[np.float64]
    requests: Totals
    failures: Totals

    @property
    def aborted(self) -> float:
        """Share of rollouts that were stopped."""
        return float(np.isfinite(self.aborted_at).mean())

    @property
    def promoted(self) -> float:
        """Share of rollouts that were found fit and not stopped."""
        return float((np.isfinite(self.fit_at) & ~np.isfinite(self.aborted_at)).mean())


class Climb:
    """Many rollouts of one policy, side by side: the state machine of `rollout`, with an array for each number.

    The split is taken to work, so that the sample ratio is not tested; and there is no A/B test, which the clock ends.

    Attributes
    ----------
    at, since : number of each rollout's present step, and the minute at which it began.
    aborted_at, fit_at : as in `Outcomes`.
    inconclusive : no verdict by the cap.
    arms : what was counted, step by step.
    """

    def __init__(self, rollouts: int, policy: CanarySpec) -> None:
        nothing = SimulatedArm(*(np.zeros(rollouts, np.int64) for _ in fields(SimulatedArm)))
        self.policy = policy
        self.at, self.since = np.zeros(rollouts, np.int64), np.zeros(rollouts)
        self.aborted_at, self.fit_at = np.full(rollouts, np.inf), np.full(rollouts, np.inf)
        self.inconclusive = np.zeros(rollouts, bool)
        self.arms: list[Arms] = [(nothing, nothing) for _ in ladder(policy)]

    @property
    def judged(self) -> Marks:
        """Rollouts that take traffic and may be stopped: with manual approval also those that were found fit."""
        waits = np.isinf(self.fit_at) | (self.policy.approval == "manual")
        return np.isinf(self.aborted_at) & ~self.inconclusive & waits

    @property
    def weights(self) -> NDArray[np.float64]:
        """Share of customers in each canary now."""
        return np.array([step.weight for step in ladder(self.policy)])[self.at]

    def observe(self, stable: SimulatedArm, canary: SimulatedArm) -> None:
        """Add what came in since the last look."""
        for number, arms in enumerate(self.arms):
            here = self.judged & (self.at == number)
            self.arms[number] = (arms[0] + stable.where(here), arms[1] + canary.where(here))

    def advance(self, minute: float) -> None:
        """Stop, go a step up, or find fit, as of `minute`."""
        judged, steps = self.judged, ladder(self.policy)
        seen = [Seen(step.weight, *arms) for step, arms in zip(steps, self.arms, strict=True)]
        log_e = {guard: log_e_value(guard, seen, self.policy) for guard in GUARDS}
        tripped = [log_e[guard] >= np.log(stopping_limit(guard, self.policy)) for guard in GUARDS]
        calm = np.logical_and.reduce([value < np.log(HOLDING_E_VALUE) for value in log_e.values()])
        stopped = judged & np.logical_or.reduce(tripped)
        self.aborted_at[stopped] = minute
        climbing = judged & ~stopped & np.isinf(self.fit_at)
        for number, step in enumerate(steps):
            in_time = climbing & (self.at == number) & (minute - self.since >= step.minutes)
            passes = in_time & calm & _clears(self.arms[number][1], self.policy)
            if number + 1 == len(steps):
                self.fit_at[passes] = minute
            else:
                self.at[passes], self.since[passes] = number + 1, minute
        self.inconclusive |= climbing & np.isinf(self.fit_at) & (minute >= self.policy.max_minutes)


def play(rollouts: int, stable: Rates, canary: Rates, traffic: Traffic, policy: CanarySpec, seed: int) -> Outcomes:
    """So many rollouts from their start to the end of the traffic: Poisson arrivals, independent outcomes.

    With manual approval nobody approves, so that the guards act until the end.

    Examples
    --------
    >>> play(100, Rates(), Rates(failures=0.5), Traffic(minutes=2), CanarySpec(), seed=1).aborted
    1.0
    """
    climb = Climb(rollouts, policy)
    rng = np.random.default_rng(seed)
    for look in range(traffic.looks):
        climb.observe(*draw(rng, climb.weights, stable, canary, traffic, look))
        climb.advance(traffic.minutes_at(look))
        if not climb.judged.any():
            break
    canaries = [canary for _, canary in climb.arms]
    requests, failures = (sum(getattr(arm, field) for arm in canaries) for field in ("requests", "failures"))
    return Outcomes(climb.aborted_at, climb.fit_at, requests, failures)


def draw(
    rng: np.random.Generator,
    weights: NDArray[np.float64],
    stable: Rates,
    canary: Rates,
    traffic: Traffic,
    look: int,
) -> Arms:
    """What reaches the two arms between the look before and look number `look`, shape (rollouts,)."""
    arriving = rng.poisson(_at(traffic.per_second, look) * traffic.look_every_s, weights.size)
    to_canary = rng.binomial(arriving, weights)
    return _arm(rng, arriving - to_canary, stable.at(look)), _arm(rng, to_canary, canary.at(look))


def draws(rollouts: int, weight: float, stable: Rates, canary: Rates, traffic: Traffic, seed: int) -> Iterator[Arms]:
    """Look after look at a weight that stays: what a rule without a ladder sees."""
    rng = np.random.default_rng(seed)
    for look in range(traffic.looks):
        yield draw(rng, np.full(rollouts, weight), stable, canary, traffic, look)


def _arm(rng: np.random.Generator, requests: Totals, rates: Rates) -> SimulatedArm:
    judged = rng.binomial(requests, rates.judged)
    failures, slow = rng.binomial(requests, rates.failures), rng.binomial(requests, rates.slow)
    return SimulatedArm(requests, failures, slow, judged, rng.binomial(judged, rates.wrong))


def _clears(canary: SimulatedArm, policy: CanarySpec) -> Marks:
    succeeds: Marks = success_bound(canary, policy) > policy.min_success
    return succeeds & (slow_bound(canary, policy) < MAX_SLOW_SHARE)


def _at(rate: float | NDArray[np.float64], look: int) -> float:
    return float(rate if np.ndim(rate) == 0 else np.asarray(rate)[look])
