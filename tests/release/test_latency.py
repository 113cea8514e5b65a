"""MLPerf's early stopping: how many fast queries prove a percentile."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from mlops_assets.release.latency import is_slow, percentile_bound, queries_needed, slow_allowed


@pytest.mark.parametrize(("over", "needed"), [(0, 299), (1, 473), (2, 628), (3, 773)])
def test_known_numbers_of_queries(over: int, needed: int) -> None:
    assert queries_needed(over, 0.99, 0.95) == needed


@pytest.mark.slow
@given(st.integers(0, 40), st.sampled_from([0.9, 0.95, 0.99]), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_two_directions_agree(over: int, percentile: float, confidence: float) -> None:
    needed = queries_needed(over, percentile, confidence)
    assert slow_allowed(needed, percentile, confidence) == over
    fewer = slow_allowed(needed - 1, percentile, confidence)
    assert fewer is None or fewer < over


def test_too_few_queries_bound_nothing() -> None:
    assert percentile_bound([1.0] * 298, 0.99, 0.95) is None
    assert percentile_bound([], 0.99, 0.95) is None


@pytest.mark.slow
def test_the_bound_lies_below_the_true_percentile_at_most_as_often_as_it_says() -> None:
    runs, truth = 1_000, float(-np.log(0.01))
    drawn = np.random.default_rng(1).exponential(size=(runs, 500))
    bounds = np.array([percentile_bound(row, 0.99, 0.95) for row in drawn])
    assert (bounds < truth).sum() <= binom.ppf(0.999, runs, 0.05)


@pytest.mark.parametrize("queries", [1, 7, 61, 300, 600])
def test_one_exactly_at_the_limit_is_called_slow_at_most_as_often_as_it_says(queries: int) -> None:
    called = [over for over in range(queries + 1) if is_slow([9.0] * over + [1.0] * (queries - over), 5.0, 0.99, 0.95)]
    assert binom.pmf(called, queries, 0.01).sum() <= 0.05
    assert queries in called
