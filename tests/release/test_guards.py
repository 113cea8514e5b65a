"""The guards' error rates and power, by simulation of whole rollouts through the functions that act."""

import numpy as np
import pytest
from scipy.stats import binom

from mlops_assets.release.counts import ArmCounts, Counts
from mlops_assets.release.guards import ALPHA_SHARES, GUARDS, judge_guards, stopping_limit
from mlops_assets.release.simulate import Rates, SimulatedArm, Traffic, simulate, stops
from mlops_assets.spec import CanarySpec
from mlops_assets.verdict import Verdict

POLICY = CanarySpec()
ROLLOUTS = 400


def _stopped(stable: Rates, canary: Rates, traffic: Traffic, seed: int = 1) -> np.ndarray:
    """Minutes until each rollout is stopped; infinity: never."""
    tripped = stops(*simulate(ROLLOUTS, stable, canary, traffic, POLICY, seed), POLICY)
    return np.where(tripped.any(axis=1), traffic.minutes_at(tripped.argmax(axis=1)), np.inf)


def test_alpha_is_split_over_the_guards_without_remainder() -> None:
    assert sum(ALPHA_SHARES.values()) == pytest.approx(1.0)


def test_an_equal_canary_is_stopped_in_less_than_two_percent_of_rollouts() -> None:
    same = Rates(failures=0.005, slow=0.005, judged=0.3, wrong=0.08)
    assert np.isfinite(_stopped(same, same, Traffic())).mean() < 0.02


@pytest.mark.parametrize("per_second", [1.0, 100.0])
def test_false_stops_stay_below_alpha_at_other_traffic(per_second: float) -> None:
    same = Rates(failures=0.005, slow=0.008, judged=0.3, wrong=0.08)
    stopped = np.isfinite(_stopped(same, same, Traffic(per_second=per_second)))
    assert stopped.sum() <= binom.ppf(0.999, ROLLOUTS, POLICY.alpha)


def test_rates_that_vary_over_the_day_do_not_raise_false_stops() -> None:
    traffic = Traffic(minutes=240, look_every_s=60)
    day = np.sin(np.linspace(0, 2 * np.pi, traffic.looks))
    same = Rates(failures=0.004 * (1 + day), slow=0.05 * (1 + day), judged=0.3, wrong=0.1 * (1 + 0.8 * day))
    stopped = _stopped(same, same, Traffic(per_second=6 * (1 - 0.9 * day), minutes=240, look_every_s=60))
    assert np.isfinite(stopped).sum() <= binom.ppf(0.999, ROLLOUTS, POLICY.alpha)


def test_busy_and_difficult_customers_who_stay_in_one_arm_do_not_raise_false_stops() -> None:
    """Failures then come in runs of one customer: the assumption of independent requests does not hold exactly."""
    rng = np.random.default_rng(11)
    sizes = rng.lognormal(0, 1, 400)
    stopped = 0
    for _ in range(200):
        customers = rng.choice(400, 2_000, p=sizes / sizes.sum())
        failed = rng.random(2_000) < rng.beta(0.5, 9.5, 400)[customers]
        mine = (rng.random(400) < POLICY.weight)[customers]
        arms = [np.column_stack([arm, arm & failed]).cumsum(axis=0)[19::20] for arm in (~mine, mine)]
        stable, canary = (SimulatedArm(arm[:, 0], arm[:, 1], arm[:, 1], arm[:, 0], arm[:, 1]) for arm in arms)
        limits = {guard: np.log(stopping_limit(guard, POLICY)) for guard in ("failures", "slow", "wrong")}
        stopped += any((GUARDS[guard](stable, canary, POLICY) >= limit).any() for guard, limit in limits.items())
    assert stopped <= binom.ppf(0.999, 200, POLICY.alpha)


def test_four_times_the_errors_are_caught_within_minutes() -> None:
    minutes = _stopped(Rates(failures=0.005), Rates(failures=0.02), Traffic())
    assert np.isfinite(minutes).mean() >= 0.99
    assert np.median(minutes) < 7


def test_wrong_answers_are_caught_as_labels_come() -> None:
    minutes = _stopped(Rates(judged=0.1, wrong=0.06), Rates(judged=0.1, wrong=0.5), Traffic())
    assert np.isfinite(minutes).mean() >= 0.99
    assert np.median(minutes) < 7


def test_a_machine_that_slows_both_arms_stops_no_canary() -> None:
    busy = Rates(slow=0.2)
    stopped = np.isfinite(_stopped(busy, busy, Traffic()))
    assert stopped.sum() <= binom.ppf(0.999, ROLLOUTS, POLICY.alpha * ALPHA_SHARES["slow"])


def test_a_grossly_slow_canary_is_stopped_even_on_a_busy_machine() -> None:
    minutes = _stopped(Rates(slow=0.1), Rates(slow=0.9), Traffic())
    assert np.isfinite(minutes).all()
    assert np.median(minutes) < 2


def test_a_canary_that_is_slower_but_within_the_limit_is_left_alone() -> None:
    stopped = np.isfinite(_stopped(Rates(slow=0.0005), Rates(slow=0.005), Traffic()))
    assert stopped.sum() <= binom.ppf(0.999, ROLLOUTS, POLICY.alpha * ALPHA_SHARES["slow"])


@pytest.mark.parametrize("stable", [0, 1, 9, 90, 900])
def test_an_outright_failure_is_stopped_within_three_canary_requests(stable: int) -> None:
    counts = Counts(ArmCounts(requests=stable), ArmCounts(requests=3, failures=3))
    assert any(claim.verdict is Verdict.FAIL for claim in judge_guards(counts, POLICY))


def test_a_guard_without_data_says_so() -> None:
    assert {claim.verdict for claim in judge_guards(Counts(), POLICY)} == {Verdict.INSUFFICIENT_DATA}
