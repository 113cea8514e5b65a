"""An A/B test's comparison: what it says, that customers are its unit, and how often its intervals are wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from mlops_assets.release.ab import GROUPS, Difference, compare
from mlops_assets.release.counts import ArmCounts, Counts
from mlops_assets.spec import CanarySpec

POLICY = CanarySpec(weights=(0.5,), ab_hours=72)
REPLICAS = 2  # each counts the customers that it meets, and here both meet all of them


def spread(total: ArmCounts) -> list[ArmCounts]:
    """An arm's counts, dealt out to the groups one by one."""
    names = [name for name in vars(total) if getattr(total, name)]
    shares = {name: np.bincount(np.arange(getattr(total, name)) % GROUPS, minlength=GROUPS) for name in names}
    return [ArmCounts(**{name: int(shares[name][group]) for name in names}) for group in range(GROUPS)]


def grouped(stable: list[ArmCounts], canary: list[ArmCounts], replicas: int = REPLICAS) -> Counts:
    groups = tuple(Counts(*arms) for arms in zip(stable, canary, strict=True))
    return replace(sum(groups, Counts()), groups=groups, times_counted=replicas)


def interval(difference: Difference) -> tuple[float, float]:
    assert difference.lower is not None
    assert difference.upper is not None
    return difference.lower, difference.upper


def compared(stable: ArmCounts, canary: ArmCounts) -> dict[str, Difference]:
    return {difference.name: difference for difference in compare(grouped(spread(stable), spread(canary)), POLICY)}


def test_it_tells_success_speed_and_correctness_with_sample_sizes_and_intervals() -> None:
    stable = ArmCounts(requests=4_000, failures=40, slow=20, judged=1_000, wrong=100, entities=4_000)
    canary = ArmCounts(requests=4_200, failures=42, slow=210, judged=900, wrong=45, entities=4_200)
    found = compared(stable, canary)
    assert list(found) == ["success", "in_time", "correct"]
    success, in_time, correct = found.values()
    assert (success.stable, success.canary, success.difference) == (0.99, 0.99, pytest.approx(0.0))
    assert (success.stable_answers, success.canary_answers) == (4_000, 4_200)
    assert (correct.stable_answers, correct.canary_answers) == (1_000, 900)
    (worst, best), (_, best_in_time), (worst_correct, _) = (interval(each) for each in (success, in_time, correct))
    assert worst < 0 < best
    assert best_in_time < 0  # 95 % in time against 99.5 %
    assert worst_correct > 0  # 95 % right against 90 %
    assert correct.message.startswith("95.00% on 900 answers, 90.00% on 1000: +5.00 points (+")


@pytest.mark.parametrize("arm", ["stable", "canary"])
def test_an_arm_without_an_answer_is_not_compared(arm: str) -> None:
    arms = {"stable": ArmCounts(requests=100, judged=20), "canary": ArmCounts(requests=100, judged=20)}
    found = compared(**{**arms, arm: ArmCounts(requests=100)})
    assert found["success"].difference is not None
    correct = found["correct"]
    assert (correct.difference, correct.lower, correct.upper) == (None, None, None)
    assert correct.message == f"insufficient data: no such answer of the {arm} arm"


def test_ten_answers_of_customers_who_are_served_well_always_or_never_tell_as_much_as_one() -> None:
    rng, widths = np.random.default_rng(3), {1: [], 10: []}
    once = spread(ArmCounts(requests=2_000, entities=REPLICAS * 2_000))
    for _ in range(40):
        unlucky = np.bincount(rng.integers(0, GROUPS, 100), minlength=GROUPS)
        for times, found in widths.items():
            arm = [
                replace(each, requests=times * each.requests, failures=times * int(failed))
                for each, failed in zip(once, unlucky, strict=True)
            ]
            lower, upper = interval(compare(grouped(arm, arm), POLICY)[0])
            found.append(upper - lower)
    assert np.mean(widths[10]) == pytest.approx(np.mean(widths[1]), rel=0.15)


@pytest.mark.parametrize("replicas", [1, 2, 16])
def test_where_no_answer_was_bad_each_customer_counts_once(replicas: int) -> None:
    many = spread(ArmCounts(requests=30_000, entities=replicas * 300))
    _, upper = interval(compare(grouped(many, many, replicas), POLICY)[0])
    assert 0.01 < upper < 0.03  # the rule of three says 3 / 300; 3 / 30,000 would be a hundredth of that


def drawn(rng: np.random.Generator, customers: int, bulk: float, rate: float, likeness: float) -> list[ArmCounts]:
    """One arm: customers of very different bulk, each with a failure rate of their own, counted by each replica."""
    requests = 1 + rng.poisson(rng.lognormal(np.log(bulk), 1.0, customers))
    own = rng.beta(rate * (1 / likeness - 1), (1 - rate) * (1 / likeness - 1), customers)
    failures, group = rng.binomial(requests, own), rng.integers(0, GROUPS, customers)
    sums = [np.bincount(group, of, GROUPS).astype(int) for of in (requests, failures, np.full(customers, REPLICAS))]
    return [ArmCounts(requests=int(n), failures=int(bad), entities=int(who)) for n, bad, who in zip(*sums, strict=True)]


WORLDS = {
    "many customers": (2_000, 0.5, 5.0, (0.05, 0.05), 0.3),
    "rare failures": (2_000, 0.5, 5.0, (0.005, 0.005), 0.3),
    "all or nothing": (1_000, 0.1, 10.0, (0.004, 0.004), 0.8),
    "few customers": (150, 0.5, 5.0, (0.3, 0.3), 0.3),
    "heavy customers": (400, 0.5, 50.0, (0.05, 0.05), 0.2),
    "independent answers": (4_000, 0.5, 2.0, (0.02, 0.02), 1e-4),
    "a true difference": (2_000, 0.5, 5.0, (0.05, 0.08), 0.2),
}


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_an_interval_misses_the_true_difference_as_rarely_as_stated(world: str) -> None:
    customers, weight, bulk, (stable_rate, canary_rate), likeness = WORLDS[world]
    rng, tests = np.random.default_rng(11), 400
    missed = missed_by_request = 0
    for _ in range(tests):
        mine = rng.binomial(customers, weight)
        stable = drawn(rng, customers - mine, bulk, stable_rate, likeness)
        counts = grouped(stable, drawn(rng, mine, bulk, canary_rate, likeness))
        success = compare(counts, POLICY)[0]
        missed += _misses(success, stable_rate - canary_rate)
        missed_by_request += _misses(compare(_by_request(counts), POLICY)[0], stable_rate - canary_rate)
    each = (1 - POLICY.confidence) / 3
    assert missed <= binom.ppf(0.999, tests, each)
    if likeness >= 0.2:  # the same with the request as the unit, to show that this test can fail
        assert missed_by_request > 5 * each * tests


def _misses(difference: Difference, truth: float) -> bool:
    lower, upper = interval(difference)
    return not lower <= truth <= upper


def _by_request(counts: Counts) -> Counts:
    return Counts(replace(counts.stable, entities=0), replace(counts.canary, entities=0))
