"""Canary rules side by side on the same simulated rollouts: false aborts, missed regressions, time, harm.

Ours, through the guards and bounds that act, beside the plain rules of the field: a success threshold each minute
(as Argo Rollouts and Flagger are commonly set up) and Mann-Whitney on per-minute rates (as Kayenta's judge does).
Run ``python benchmarks/rollout.py``; it prints a Markdown table and takes a minute or two.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from mlops_assets.release.sequential import upper_bound
from mlops_assets.release.simulate import Rates, SimulatedArm, Traffic, simulate, stops
from mlops_assets.spec import CanarySpec

POLICY = CanarySpec()
MINUTES = 60
LOOKS_PER_MINUTE = 6
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Outcome:
    """Look at which each rollout was aborted and at which it was promoted; NEVER if it was not. Shape (rollouts,)."""

    aborted: NDArray[np.int64]
    promoted: NDArray[np.int64]


@dataclass(frozen=True)
class Scenario:
    """A canary beside its stable arm; `bad`: it should be aborted."""

    name: str
    stable: float
    canary: float
    bad: bool


Rule = Callable[[SimulatedArm, SimulatedArm], Outcome]

SCENARIOS = (
    Scenario("equal, 0.5 % errors", 0.005, 0.005, bad=False),
    Scenario("equal, no errors", 0.0, 0.0, bad=False),
    Scenario("2 % against 0.5 %", 0.005, 0.02, bad=True),
    Scenario("fails outright", 0.005, 1.0, bad=True),
)


def ours(stable: SimulatedArm, canary: SimulatedArm) -> Outcome:
    """E-process guards at every look; promotion by exact bounds after the least time."""
    success = upper_bound(canary.failures, canary.requests, POLICY.confidence) < 1 - POLICY.min_success
    latency = upper_bound(canary.slow, canary.requests, POLICY.confidence) < 0.01
    late = np.arange(canary.requests.shape[1]) + 1 >= POLICY.minutes * LOOKS_PER_MINUTE
    return _first_of(stops(stable, canary, POLICY), success & latency & late)


def threshold_each_minute(failed_checks: int) -> Rule:
    """Success of the last minute >= 0.99 as a point check; abort at so many failed checks; promote at 30 minutes."""

    def rule(_: SimulatedArm, canary: SimulatedArm) -> Outcome:
        requests, failures = (_per_minute(totals) for totals in (canary.requests, canary.failures))
        failed = failures > (1 - POLICY.min_success) * requests
        return _first_of(_at_looks(failed.cumsum(axis=1) >= failed_checks, canary), _after_least_time(canary))

    return rule


def mann_whitney(stable: SimulatedArm, canary: SimulatedArm) -> Outcome:
    """One-sided Mann-Whitney at 98 % on the per-minute error rates so far, each 5 minutes from the tenth on."""
    rates = [_per_minute(arm.failures) / np.maximum(_per_minute(arm.requests), 1) for arm in (canary, stable)]
    worse = np.zeros(rates[0].shape, bool)
    for minute in range(10, int(POLICY.minutes) + 1, 5):
        with np.errstate(invalid="ignore", divide="ignore"):
            test = mannwhitneyu(
                *(rate[:, :minute] for rate in rates), alternative="greater", axis=1, method="asymptotic"
            )
        worse[:, minute - 1] = test.pvalue < 0.02
    return _first_of(_at_looks(worse, canary), _after_least_time(canary))


RULES: dict[str, Rule] = {
    "ours": ours,
    "threshold, 1 failed check": threshold_each_minute(1),
    "threshold, 5 failed checks": threshold_each_minute(5),
    "Mann-Whitney": mann_whitney,
}


def measure(rollouts: int, seed: int) -> Iterator[str]:
    """The lines of the table."""
    yield f"{rollouts} rollouts each, {POLICY.weight:.0%} canary, up to {MINUTES} minutes, alpha {POLICY.alpha:g}."
    yield ""
    yield "| requests/s | scenario | rule | aborted | promoted | median minutes to verdict | failed canary requests |"
    yield "|---|---|---|---|---|---|---|"
    for per_second in (1.0, 10.0, 100.0):
        traffic = Traffic(per_second, MINUTES, 60 / LOOKS_PER_MINUTE)
        for scenario in SCENARIOS:
            rates = (Rates(failures=scenario.stable), Rates(failures=scenario.canary))
            stable, canary = simulate(rollouts, *rates, traffic, POLICY, seed)
            for name, rule in RULES.items():
                yield f"| {per_second:g} | {scenario.name} | {name} | {_describe(rule(stable, canary), canary)} |"


def _describe(outcome: Outcome, canary: SimulatedArm) -> str:
    verdict = np.minimum(outcome.aborted, outcome.promoted)
    looks = canary.requests.shape[1]
    decided = verdict < looks
    median = float(np.median(np.where(decided, (verdict + 1.0) / LOOKS_PER_MINUTE, np.inf)))
    failed = canary.failures[np.arange(verdict.size), np.minimum(verdict, looks - 1)].mean()
    minutes = f"{median:.1f}" if np.isfinite(median) else f"over {MINUTES}"
    aborted, promoted = (outcome.aborted < looks).mean(), (outcome.promoted < looks).mean()
    return f"{aborted:.1%} | {promoted:.1%} | {minutes} | {failed:.1f}"


def _per_minute(totals: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.diff(totals[:, LOOKS_PER_MINUTE - 1 :: LOOKS_PER_MINUTE], axis=1, prepend=0)


def _at_looks(by_minute: NDArray[np.bool_], arm: SimulatedArm) -> NDArray[np.bool_]:
    marks = np.zeros(arm.requests.shape, bool)
    marks[:, LOOKS_PER_MINUTE - 1 :: LOOKS_PER_MINUTE] = by_minute
    return marks


def _after_least_time(arm: SimulatedArm) -> NDArray[np.bool_]:
    marks = np.zeros(arm.requests.shape, bool)
    marks[:, int(POLICY.minutes) * LOOKS_PER_MINUTE - 1 :] = True
    return marks


def _first_of(abort: NDArray[np.bool_], promote: NDArray[np.bool_]) -> Outcome:
    """The first mark of each; whichever comes later did not happen, and an abort goes before a promotion."""
    first_abort, first_promote = _first(abort), _first(promote)
    aborted = np.where(first_abort <= first_promote, first_abort, NEVER)
    return Outcome(aborted, np.where(first_promote < first_abort, first_promote, NEVER))


def _first(marks: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.where(marks.any(axis=1), marks.argmax(axis=1), NEVER)


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rollouts", type=int, default=1_000, help="simulated rollouts per scenario")
    arguments.add_argument("--seed", type=int, default=20260301)
    given = arguments.parse_args()
    started = time.perf_counter()
    for line in measure(given.rollouts, given.seed):
        print(line, flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
