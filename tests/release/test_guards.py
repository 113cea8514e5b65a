"""The guards' error rates and power, by simulation of whole rollouts through the functions that act."""

import numpy as np
import pytest
from scipy.stats import binom

from mlops_assets.release.counts import ArmCounts, Counts
from mlops_assets.release.guards import ALPHA_SHARES, Seen, judge_guards, log_e_value, stopping_limit
from mlops_assets.release.simulate import Outcomes, Rates, SimulatedArm, Traffic, play
from mlops_assets.spec import CanarySpec
from mlops_assets.verdict import Verdict

POLICY = CanarySpec()
# Nobody approves and there is no cap, so that the guards act to the end of the traffic.
WATCHED = CanarySpec(approval="manual", max_minutes=10_000)
LADDER = WATCHED.model_copy(update={"weights": (0.05, 0.25, 0.5), "shadow_minutes": 10.0, "minutes": 20.0})
ROLLOUTS = 400


def _play(stable: Rates, canary: Rates, traffic: Traffic, policy: CanarySpec = WATCHED, seed: int = 1) -> Outcomes:
    return play(ROLLOUTS, stable, canary, traffic, policy, seed)


def _at_most(stopped: float, alpha: float) -> bool:
    """Whether so large a share may be stopped at this error rate."""
    return bool(round(stopped * ROLLOUTS) <= binom.ppf(0.999, ROLLOUTS, alpha))


def test_alpha_is_split_over_the_guards_without_remainder() -> None:
    assert sum(ALPHA_SHARES.values()) == pytest.approx(1.0)


@pytest.mark.slow
def test_an_equal_canary_is_stopped_in_less_than_two_percent_of_rollouts() -> None:
    same = Rates(failures=0.005, slow=0.005, judged=0.3, wrong=0.08)
    assert _play(same, same, Traffic()).aborted < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("per_second", [1.0, 100.0])
def test_false_stops_stay_below_alpha_at_other_traffic(per_second: float) -> None:
    same = Rates(failures=0.005, slow=0.008, judged=0.3, wrong=0.08)
    assert _at_most(_play(same, same, Traffic(per_second=per_second)).aborted, POLICY.alpha)


@pytest.mark.slow
@pytest.mark.parametrize("policy", [WATCHED, LADDER], ids=["one step", "a ladder after a shadow step"])
def test_rates_that_vary_over_the_day_do_not_raise_false_stops(policy: CanarySpec) -> None:
    looks = Traffic(minutes=240, look_every_s=60).looks
    day = np.sin(np.linspace(0, 2 * np.pi, looks))
    same = Rates(failures=0.004 * (1 + day), slow=0.05 * (1 + day), judged=0.3, wrong=0.1 * (1 + 0.8 * day))
    traffic = Traffic(per_second=6 * (1 - 0.9 * day), minutes=240, look_every_s=60)
    assert _at_most(_play(same, same, traffic, policy).aborted, POLICY.alpha)


@pytest.mark.slow
def test_messages_that_get_harder_while_the_weight_rises_stop_no_equal_canary() -> None:
    """Pooled over the steps the canary would look worse, as most of its answers come from the hard time."""
    traffic = Traffic(minutes=90, look_every_s=30)
    harder = Rates(judged=0.5, wrong=np.linspace(0.02, 0.5, traffic.looks))
    found = _play(harder, harder, traffic, LADDER.model_copy(update={"minutes": 20.0}))
    assert np.isfinite(found.fit_at).mean() > 0.9  # they did climb
    assert _at_most(found.aborted, POLICY.alpha)


@pytest.mark.slow
def test_the_ladder_and_the_wait_for_a_person_keep_the_false_stops_below_alpha() -> None:
    same = Rates(failures=0.004, slow=0.004, judged=0.3, wrong=0.08)
    found = _play(same, same, Traffic(minutes=240, look_every_s=60), LADDER)
    assert np.isfinite(found.fit_at).mean() > 0.9
    assert _at_most(found.aborted, POLICY.alpha)


@pytest.mark.slow
def test_a_canary_that_is_bad_only_under_the_load_of_a_later_step_is_stopped_there() -> None:
    traffic = Traffic(per_second=100, minutes=70, look_every_s=20)
    late = np.where(np.arange(traffic.looks) / 3 > 52, 0.02, 0.004)  # the third step begins after 50 minutes
    found = _play(Rates(failures=0.004), Rates(failures=late), traffic, LADDER)
    assert found.aborted >= 0.99
    assert 52 < np.median(found.aborted_at) < 54


def test_busy_and_difficult_customers_who_stay_in_one_arm_do_not_raise_false_stops() -> None:
    """Failures then come in runs of one customer: the assumption of independent requests does not hold exactly."""
    rng = np.random.default_rng(11)
    sizes = rng.lognormal(0, 1, 400)
    stopped = 0
    for _ in range(200):
        customers = rng.choice(400, 2_000, p=sizes / sizes.sum())
        failed = rng.random(2_000) < rng.beta(0.5, 9.5, 400)[customers]
        mine = (rng.random(400) < 0.1)[customers]
        arms = [np.column_stack([arm, arm & failed]).cumsum(axis=0)[19::20] for arm in (~mine, mine)]
        steps = [Seen(0.1, *(SimulatedArm(arm[:, 0], arm[:, 1], arm[:, 1], arm[:, 0], arm[:, 1]) for arm in arms))]
        limits = {guard: np.log(stopping_limit(guard, POLICY)) for guard in ("failures", "slow", "wrong")}
        stopped += any((log_e_value(guard, steps, POLICY) >= limit).any() for guard, limit in limits.items())
    assert stopped <= binom.ppf(0.999, 200, POLICY.alpha)


@pytest.mark.slow
def test_four_times_the_errors_are_caught_within_minutes() -> None:
    found = _play(Rates(failures=0.005), Rates(failures=0.02), Traffic(minutes=60))
    assert found.aborted >= 0.99
    assert np.median(found.aborted_at) < 7


def test_wrong_answers_are_caught_as_labels_come() -> None:
    found = _play(Rates(judged=0.1, wrong=0.06), Rates(judged=0.1, wrong=0.5), Traffic())
    assert found.aborted >= 0.99
    assert np.median(found.aborted_at) < 7


@pytest.mark.slow
def test_a_machine_that_slows_both_arms_stops_no_canary() -> None:
    busy = Rates(slow=0.2)
    assert _at_most(_play(busy, busy, Traffic()).aborted, POLICY.alpha * ALPHA_SHARES["slow"])


def test_a_grossly_slow_canary_is_stopped_even_on_a_busy_machine() -> None:
    found = _play(Rates(slow=0.1), Rates(slow=0.9), Traffic())
    assert found.aborted == 1.0
    assert np.median(found.aborted_at) < 2


@pytest.mark.slow
def test_a_canary_that_is_slower_but_within_the_limit_is_left_alone() -> None:
    found = _play(Rates(slow=0.0005), Rates(slow=0.005), Traffic())
    assert _at_most(found.aborted, POLICY.alpha * ALPHA_SHARES["slow"])


@pytest.mark.parametrize("stable", [0, 1, 9, 90, 900])
def test_an_outright_failure_is_stopped_within_three_canary_requests(stable: int) -> None:
    counts = Counts(ArmCounts(requests=stable), ArmCounts(requests=3, failures=3))
    assert any(claim.verdict is Verdict.FAIL for claim in judge_guards([counts], POLICY))


def test_a_guard_without_data_says_so() -> None:
    assert {claim.verdict for claim in judge_guards([Counts()], POLICY)} == {Verdict.INSUFFICIENT_DATA}
