"""E-processes keep their error rate under continuous looks; bounds keep their coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from mlops_assets.release.sequential import (
    anytime_upper_bound,
    log_e_sample_ratio,
    log_e_share,
    lower_bound,
    trials_needed,
    upper_bound,
)


def _ever(log_e: np.ndarray, alpha: float) -> int:
    return int((log_e >= np.log(1 / alpha)).any(axis=1).sum())


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_an_e_process_looked_at_after_every_trial_errs_at_most_alpha_of_the_time(share: float) -> None:
    runs, trials, alpha = 1_000, 300, 0.05
    drawn = np.random.default_rng(1).random((runs, trials)) < share
    log_e = log_e_share(drawn.cumsum(axis=1), np.arange(1, trials + 1), share)
    assert _ever(log_e, alpha) <= binom.ppf(0.999, runs, alpha)


def test_a_probability_that_wanders_below_its_bound_does_not_raise_the_error() -> None:
    runs, trials, alpha = 1_000, 300, 0.05
    wandering = 0.1 * (0.5 + 0.5 * np.sin(np.arange(trials) / 20) ** 2)
    drawn = np.random.default_rng(2).random((runs, trials)) < wandering
    log_e = log_e_share(drawn.cumsum(axis=1), np.arange(1, trials + 1), 0.1)
    assert _ever(log_e, alpha) <= binom.ppf(0.999, runs, alpha)


def test_the_expected_e_value_under_the_null_is_at_most_one() -> None:
    trials, share = 30, 0.1
    outcomes = np.arange(trials + 1)
    expectation = (binom.pmf(outcomes, trials, share) * np.exp(log_e_share(outcomes, trials, share))).sum()
    assert expectation == pytest.approx(1.0)
    below = (binom.pmf(outcomes, trials, 0.05) * np.exp(log_e_share(outcomes, trials, share))).sum()
    assert below < 1.0


@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_larger_null_share_never_strengthens_the_evidence(hits: int, misses: int, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert log_e_share(hits, hits + misses, large) <= log_e_share(hits, hits + misses, small) + 1e-9


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.floats(0.001, 1.0))
def test_evidence_is_finite_whatever_the_counts(hits: int, misses: int, null: float) -> None:
    assert np.isfinite(np.exp(log_e_share(hits, hits + misses, null)))


def test_the_second_of_two_failures_breaks_a_floor_of_one_percent() -> None:
    assert log_e_share(2, 2, 0.01) > np.log(100)


def test_the_exact_bound_covers_at_least_as_often_as_it_says() -> None:
    outcomes = np.arange(301)
    for rate in (0.001, 0.01, 0.1):
        probability = binom.pmf(outcomes, 300, rate)
        assert probability[upper_bound(outcomes, 300, 0.95) >= rate].sum() >= 0.95
        assert probability[lower_bound(outcomes, 300, 0.95) <= rate].sum() >= 0.95


def test_without_trials_nothing_is_known() -> None:
    assert float(upper_bound(0, 0, 0.95)) == 1.0
    assert float(lower_bound(0, 0, 0.95)) == 0.0
    assert float(anytime_upper_bound(0, 0, 0.05)) == 1.0
    assert float(log_e_share(0, 0, 0.1)) == pytest.approx(0.0)


@given(st.floats(0, 0.02), st.sampled_from([0.01, 0.05]))
def test_the_trials_needed_are_just_enough(rate: float, limit: float) -> None:
    needed = trials_needed(rate, limit, 0.95)
    if needed is None:
        assert rate > 0.95 * limit
    elif rate == 0:
        assert upper_bound(0, needed, 0.95) < limit <= upper_bound(0, needed - 1, 0.95)
    else:
        assert upper_bound(np.floor(rate * needed), needed, 0.95) < limit


@pytest.mark.slow
def test_the_anytime_bound_holds_at_all_sample_sizes_at_once() -> None:
    runs, trials, alpha = 1_000, 400, 0.05
    events = (np.random.default_rng(3).random((runs, trials)) < 0.1).cumsum(axis=1)
    missed = (anytime_upper_bound(events, np.arange(1, trials + 1), alpha) < 0.1).any(axis=1).sum()
    assert missed <= binom.ppf(0.999, runs, alpha)


def test_a_sound_split_is_not_accused_and_a_broken_one_is() -> None:
    rng = np.random.default_rng(4)
    drawn = (rng.random((500, 400)) < 0.1).cumsum(axis=1)
    accused = sum(
        log_e_sample_ratio(int(run[look]), look + 1, 0.1, 1.1) >= np.log(1000)
        for run in drawn[:50]
        for look in range(0, 400, 20)
    )
    assert accused == 0
    assert log_e_sample_ratio(0, 1_000, 0.1, 1.1) >= np.log(1000)
    assert log_e_sample_ratio(500, 1_000, 0.1, 1.1) >= np.log(1000)


def _counted_apart(rng: np.random.Generator, observers: int, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """A sound split of customers who come again and again, each time to any of the observers: the sums, look by look.

    Each observer counts a customer once and knows nothing of what the others count. A few customers come all the time.
    """
    customers, visits = 400, 4_000
    bulk = rng.pareto(1.2, customers) + 0.1
    who, in_canary = rng.choice(customers, visits, p=bulk / bulk.sum()), rng.random(customers) < weight
    _, first = np.unique(who * observers + rng.integers(0, observers, visits), return_index=True)
    new = np.isin(np.arange(visits), first)
    return (new & in_canary[who]).cumsum()[39::40], new.cumsum()[39::40]


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.1, 0.5])
@pytest.mark.parametrize("observers", [1, 2, 4, 16])
def test_a_sound_split_is_accused_as_rarely_as_stated_however_many_count_the_same_customers(
    observers: int, weight: float
) -> None:
    rng, runs, alpha = np.random.default_rng(5), 600, 0.05
    mine, total = zip(*(_counted_apart(rng, observers, weight) for _ in range(runs)), strict=True)
    arms = np.array(mine), np.array(total)
    assert _ever(log_e_sample_ratio(*arms, weight, 1.0, observers), alpha) <= binom.ppf(0.999, runs, alpha)
    if observers == 16:  # the same with the sums as they are, to show that this test can fail
        assert _ever(log_e_sample_ratio(*arms, weight, 1.0), alpha) > 5 * alpha * runs


@pytest.mark.parametrize("observers", [1, 2, 4, 16])
def test_a_broken_split_is_accused_however_many_count_the_same_customers(observers: int) -> None:
    for mine in (0, 500 * observers):
        assert log_e_sample_ratio(mine, 1_000 * observers, 0.1, 1.1, observers) >= np.log(1000)
