"""Whole rollouts in simulation, many at once, through the guards that act: how often, and how soon, they stop.

It is how error rates and times to a verdict are stated, in the tests and in the benchmark, and how a policy
can be tried before it is used. It draws arrivals and outcomes; what they mean is the guards' to say.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mlops_assets.release.guards import GUARDS, stopping_limit
from mlops_assets.spec import CanarySpec

Totals = NDArray[np.int64]


@dataclass(frozen=True)
class SimulatedArm:
    """One arm of many rollouts: running totals, shape (rollouts, looks)."""

    requests: Totals
    failures: Totals
    slow: Totals
    judged: Totals
    wrong: Totals


@dataclass(frozen=True)
class Rates:
    """Probabilities per request of one arm (`wrong`: per judged answer); each a number or one per look."""

    failures: float | NDArray[np.float64] = 0.0
    slow: float | NDArray[np.float64] = 0.0
    judged: float | NDArray[np.float64] = 0.0
    wrong: float | NDArray[np.float64] = 0.0


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

    def minutes_at(self, look: NDArray[np.int64]) -> NDArray[np.float64]:
        """Minutes since the start at look number `look`, from 0."""
        return (look + 1) * self.look_every_s / 60


def simulate(
    rollouts: int, stable: Rates, canary: Rates, traffic: Traffic, policy: CanarySpec, seed: int
) -> tuple[SimulatedArm, SimulatedArm]:
    """The stable and the canary arm of so many rollouts: Poisson arrivals, split by weight, independent outcomes.

    Examples
    --------
    >>> stable, canary = simulate(100, Rates(), Rates(failures=0.5), Traffic(minutes=2), CanarySpec(), seed=1)
    >>> float(stops(stable, canary, CanarySpec()).any(axis=1).mean())
    1.0
    """
    rng = np.random.default_rng(seed)
    arriving = rng.poisson(
        traffic.per_second * np.ones(traffic.looks) * traffic.look_every_s, (rollouts, traffic.looks)
    )
    to_canary = rng.binomial(arriving, policy.weight)
    return _arm(rng, arriving - to_canary, stable), _arm(rng, to_canary, canary)


def _arm(rng: np.random.Generator, requests: Totals, rates: Rates) -> SimulatedArm:
    judged = rng.binomial(requests, rates.judged)
    events = (rng.binomial(requests, rates.failures), rng.binomial(requests, rates.slow))
    wrong = rng.binomial(judged, rates.wrong)
    return SimulatedArm(*(counts.cumsum(axis=1) for counts in (requests, *events, judged, wrong)))


def stops(stable: SimulatedArm, canary: SimulatedArm, policy: CanarySpec) -> NDArray[np.bool_]:
    """Whether any guard stops the canary at each look, shape (rollouts, looks); in blocks that fit the cache."""
    blocks = [slice(first, first + 40) for first in range(0, stable.requests.shape[0], 40)]
    return np.concatenate([_stops(_rows(stable, block), _rows(canary, block), policy) for block in blocks])


def _stops(stable: SimulatedArm, canary: SimulatedArm, policy: CanarySpec) -> NDArray[np.bool_]:
    tripped = [
        log_e(stable, canary, policy) >= np.log(stopping_limit(guard, policy)) for guard, log_e in GUARDS.items()
    ]
    return np.logical_or.reduce(tripped)


def _rows(arm: SimulatedArm, block: slice) -> SimulatedArm:
    return SimulatedArm(*(getattr(arm, part.name)[block] for part in fields(arm)))
