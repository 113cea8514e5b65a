"""Canary rules by seeded simulation: false aborts, missed regressions, time, harm; writes docs/rollout_simulation.md.

    python benchmarks/rollout.py [--rollouts 1000]

Ours, through the guards and bounds that act, beside the plain rules of the field on rollouts of the same kind: a
success threshold each minute (as Argo Rollouts and Flagger are commonly set up) and Mann-Whitney on per-minute
rates (as Kayenta's judge does).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from mlops_assets.release.simulate import Outcomes, Rates, Traffic, draws, play
from mlops_assets.spec import CanarySpec

OUTPUT = Path(__file__).parents[1] / "docs" / "rollout_simulation.md"
SEED = 20260301
LOOK_S = 10
PER_SECOND = (1.0, 10.0, 100.0)
POLICY = CanarySpec()
CLIMB = CanarySpec(weights=(0.05, 0.25, 0.5), minutes=10)
# Nobody approves: the guards act to the end, as they do while a verdict waits to be carried out.
WAITS = CanarySpec(approval="manual", max_minutes=10_000)
LADDER = WAITS.model_copy(update={"weights": (0.05, 0.25, 0.5), "shadow_minutes": 10.0, "minutes": 20.0})

Numbers = NDArray[np.float64]
Rule = Callable[[Rates, Rates, float, int], Outcomes]


@dataclass(frozen=True)
class Scenario:
    """A canary beside its stable arm."""

    name: str
    stable: Rates
    canary: Rates


SAME = Rates(failures=0.005, slow=0.005, judged=0.3, wrong=0.08)
SCENARIOS = (
    Scenario("equal: 0.5 % errors", Rates(failures=0.005), Rates(failures=0.005)),
    Scenario("equal: no errors", Rates(), Rates()),
    Scenario("bad: 2 % errors against 0.5 %", Rates(failures=0.005), Rates(failures=0.02)),
    Scenario("bad: fails outright", Rates(failures=0.005), Rates(failures=1.0)),
)


def ours(policy: CanarySpec) -> Rule:
    """The guards and bounds under one policy."""

    def rule(stable: Rates, canary: Rates, per_second: float, rollouts: int) -> Outcomes:
        return play(rollouts, stable, canary, Traffic(per_second, policy.max_minutes, LOOK_S), policy, SEED)

    return rule


def threshold_each_minute(failed_checks: int) -> Rule:
    """Success of the last minute >= 0.99 as a point check; abort at so many failed checks; promote at 30 minutes."""

    def rule(stable: Rates, canary: Rates, per_second: float, rollouts: int) -> Outcomes:
        _, (requests, failures) = _by_minute(stable, canary, per_second, rollouts)
        failed = (failures > (1 - POLICY.min_success) * requests).cumsum(axis=1)
        return _ended(failed >= failed_checks, requests, failures)

    return rule


def mann_whitney(stable: Rates, canary: Rates, per_second: float, rollouts: int) -> Outcomes:
    """One-sided Mann-Whitney at 98 % on the per-minute error rates so far, each 5 minutes from the tenth on."""
    arms = _by_minute(stable, canary, per_second, rollouts)
    theirs, mine = (failures / np.maximum(requests, 1) for requests, failures in arms)
    worse = np.zeros(mine.shape, bool)
    for minute in range(10, int(POLICY.minutes) + 1, 5):
        with np.errstate(invalid="ignore", divide="ignore"):
            test = mannwhitneyu(
                mine[:, :minute], theirs[:, :minute], alternative="greater", axis=1, method="asymptotic"
            )
        worse[:, minute - 1] = test.pvalue < 0.02
    return _ended(worse, *arms[1])


RULES: dict[str, Rule] = {
    "ours": ours(POLICY),
    "ours, ladder 5-25-50 %": ours(CLIMB),
    "threshold, 1 failed check": threshold_each_minute(1),
    "threshold, 5 failed checks": threshold_each_minute(5),
    "Mann-Whitney": mann_whitney,
}


def rules_side_by_side(rollouts: int) -> Iterator[str]:
    """Every scenario at every traffic under every rule."""
    yield "| requests/s | canary | rule | aborted | promoted | median minutes to verdict | failed canary requests |"
    yield "|---|---|---|---|---|---|---|"
    for per_second in PER_SECOND:
        for scenario in SCENARIOS:
            for name, rule in RULES.items():
                found = rule(scenario.stable, scenario.canary, per_second, rollouts)
                cells = f"{_share(found.aborted, rollouts)} | {_share(found.promoted, rollouts)}"
                cells += f" | {_minutes(np.minimum(found.aborted_at, found.fit_at))} | {found.failures.mean():.1f}"
                yield f"| {per_second:g} | {scenario.name} | {name} | {cells} |"


def false_aborts_under_strain(rollouts: int) -> Iterator[str]:
    """Equal canaries where error rates are hard to keep: long waits, ladders, days that vary, labels that come."""
    yield "| equal canary, watched to the end | requests/s | aborted |"
    yield "|---|---|---|"
    looks = Traffic(minutes=480, look_every_s=60).looks
    day = np.sin(np.linspace(0, 2 * np.pi, looks))
    varying = Rates(failures=0.004 * (1 + day), slow=0.03 * (1 + day), judged=0.3, wrong=0.1 * (1 + 0.8 * day))
    harder = Rates(judged=0.5, wrong=np.linspace(0.02, 0.5, looks))
    for name, rates, policy, per_second in (
        ("one step, 8 hours in PROMOTING", SAME, WAITS, 10.0),
        ("ladder after a shadow step, 8 hours", SAME, LADDER, 10.0),
        ("one step, traffic and rates vary over the day", varying, WAITS, 6 * (1 - 0.9 * day)),
        ("ladder, traffic and rates vary over the day", varying, LADDER, 6 * (1 - 0.9 * day)),
        ("ladder, messages get harder while the weight rises", harder, LADDER, 10.0),
    ):
        traffic = Traffic(per_second, minutes=480, look_every_s=60)
        found = play(rollouts, rates, rates, traffic, policy, SEED)
        shown = "varies" if np.ndim(per_second) else f"{per_second:g}"
        yield f"| {name} | {shown} | {_share(found.aborted, rollouts)} |"


def promoted_at_the_limit(rollouts: int) -> Iterator[str]:
    """How often a canary that lies at or over its limit, as the stable arm does, is promoted by the cap."""
    yield "| canary and stable arm fail | requests/s | promoted | with the ladder |"
    yield "|---|---|---|---|"
    for times in (1.0, 1.5, 2.0):
        rates = Rates(failures=times * (1 - POLICY.min_success))
        for per_second in PER_SECOND:
            traffic = Traffic(per_second, POLICY.max_minutes, look_every_s=30)
            found = (play(rollouts, rates, rates, traffic, policy, SEED).promoted for policy in (POLICY, CLIMB))
            cells = " | ".join(_share(promoted, rollouts) for promoted in found)
            yield f"| {times:g} times what is allowed | {per_second:g} | {cells} |"


def outright_failure(rollouts: int) -> Iterator[str]:
    """How soon a canary that fails every request is stopped, looked at each half second as the endpoint does."""
    yield "| requests/s | stopped within 5 s | median seconds | 99 % within s | failed requests, mean | at most |"
    yield "|---|---|---|---|---|---|"
    for per_second in PER_SECOND:
        traffic = Traffic(per_second, minutes=120 / per_second, look_every_s=0.5)
        found = play(rollouts, Rates(failures=0.005), Rates(failures=1.0), traffic, POLICY, SEED)
        seconds = found.aborted_at * 60
        within = _share(float((seconds <= 5).mean()), rollouts)
        late = np.quantile(seconds, 0.99, method="higher")
        harm = f"{found.failures.mean():.1f} | {found.failures.max()}"
        yield f"| {per_second:g} | {within} | {np.median(seconds):.1f} | {late:.1f} | {harm} |"


def document(rollouts: int) -> Iterator[str]:
    """The whole page."""
    yield "# Rollouts in simulation"
    yield ""
    yield f"Made by `python benchmarks/rollout.py --rollouts {rollouts}` (seed {SEED}); do not edit."
    yield (
        f"Each row: {rollouts:,} seeded rollouts, alpha {POLICY.alpha:g}, 95 % half-widths (Wilson). Ours is the "
        "policy as it comes (10 % of customers, 30 minutes at least), looked at each 10 s; its ladder spends at least "
        f"{CLIMB.minutes:g} minutes on each step. What is neither aborted nor promoted by {POLICY.max_minutes:g} "
        "minutes is inconclusive, and the stable version stays. The plain rules promote after 30 minutes what they did "
        "not abort. A failed canary request is answered by the stable version, so that its cost is a detour."
    )
    yield ""
    yield "## Beside the plain rules of the field"
    yield ""
    yield from rules_side_by_side(rollouts)
    yield ""
    yield "## False aborts where they are hard to avoid"
    yield ""
    yield from false_aborts_under_strain(rollouts)
    yield ""
    yield "## Promotions that should not be"
    yield ""
    yield (
        f"The bounds hold at {POLICY.confidence:.0%} for one look; here they are looked at until the cap of "
        f"{POLICY.max_minutes:g} minutes. With a ladder, only a canary that passes every step is promoted."
    )
    yield ""
    yield from promoted_at_the_limit(rollouts)
    yield ""
    yield "## A canary that fails outright"
    yield ""
    yield "Looked at each half second; two canary requests are the least that can tell, and arrivals are random."
    yield ""
    yield from outright_failure(rollouts)


def _by_minute(
    stable: Rates, canary: Rates, per_second: float, rollouts: int
) -> tuple[tuple[Numbers, Numbers], tuple[Numbers, Numbers]]:
    """Requests and failures of each arm in each minute up to the least time, shape (rollouts, minutes)."""
    traffic = Traffic(per_second, POLICY.minutes, LOOK_S)
    looks = list(draws(rollouts, POLICY.weights[0], stable, canary, traffic, SEED))

    def minutes(arm: int, field: str) -> Numbers:
        by_look = np.stack([getattr(arms[arm], field) for arms in looks], axis=1)
        return by_look.reshape(rollouts, -1, 60 // LOOK_S).sum(axis=2).astype(float)

    first, second = ((minutes(arm, "requests"), minutes(arm, "failures")) for arm in (0, 1))
    return first, second


def _ended(abort: NDArray[np.bool_], requests: Numbers, failures: Numbers) -> Outcomes:
    """A plain rule's end: the first minute that aborts, or a promotion after the least time."""
    aborted_at = np.where(abort.any(axis=1), abort.argmax(axis=1) + 1.0, np.inf)
    fit_at = np.where(np.isfinite(aborted_at), np.inf, POLICY.minutes)
    last = np.minimum(aborted_at, fit_at).astype(int) - 1
    row = np.arange(last.size)
    until = [totals.cumsum(axis=1)[row, last].astype(np.int64) for totals in (requests, failures)]
    return Outcomes(aborted_at, fit_at, *until)


def _share(share: float, rollouts: int) -> str:
    """A share with the half-width of its 95 % interval (Wilson, 1927)."""
    z = 1.96
    half = z / (1 + z**2 / rollouts) * np.sqrt(share * (1 - share) / rollouts + z**2 / (4 * rollouts**2))
    return f"{share:.1%} ± {100 * half:.1f}"


def _minutes(verdict_at: Numbers) -> str:
    median = float(np.median(verdict_at))
    return f"{median:.1f}" if np.isfinite(median) else f"over {POLICY.max_minutes:g}"


def main() -> None:
    """Simulate and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=1_000, help="simulated rollouts per row")
    OUTPUT.write_text("\n".join(document(parser.parse_args().rollouts)) + "\n")
    print(OUTPUT)


if __name__ == "__main__":
    main()
