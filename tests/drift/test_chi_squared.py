from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from mlops_assets.drift.chi_squared import chi_squared, contingency, homogeneity, pool_rare, total_variation
from mlops_assets.drift.result import Limits
from mlops_assets.verdict import Verdict
from tests.drift.simulate import alarms, at_most

counts = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=2, max_size=8)


@given(counts)
def test_contingency_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    table = np.array(pairs).T
    scipy = chi2_contingency(table, correction=False)
    ours = contingency(table)
    assert (ours.statistic, ours.p_value) == pytest.approx((scipy.statistic, scipy.pvalue))


@given(counts)
def test_pooling_keeps_every_row_and_ends_with_expected_counts_of_five_or_two_categories(
    pairs: list[tuple[int, int]],
) -> None:
    table = np.array(pairs).T
    pooled = pool_rare(table)
    assert (pooled.sum(axis=1) == table.sum(axis=1)).all()
    least = (np.outer(pooled.sum(axis=1), pooled.sum(axis=0)) / pooled.sum()).min()
    assert pooled.shape[1] == 2 or least >= 5


@pytest.mark.slow
def test_a_hundred_thousand_rare_categories_are_pooled_in_seconds() -> None:
    """Each merge used to look at all of them: a quarter of an hour."""
    assert (pool_rare(np.ones((2, 100_000), dtype=int)) == np.full((2, 12_500), 8)).all()


def test_thin_two_by_two_tables_are_tested_exactly() -> None:
    assert homogeneity(np.array([[50, 1], [20, 4]])).method == "fisher exact"


def test_one_category_on_both_sides_is_quiet() -> None:
    assert chi_squared({"a": 100}, {"a": 40}).verdict is Verdict.PASS


def test_effect_is_free_of_sample_sizes() -> None:
    small, large = np.array([[50, 50], [80, 20]]), np.array([[5000, 5000], [80, 20]])
    assert total_variation(small) == pytest.approx(total_variation(large)) == pytest.approx(0.3)


def test_a_new_category_counts_as_change() -> None:
    assert chi_squared({"a": 100}, {"b": 100}).effect == 1.0


@pytest.mark.parametrize("rows", [50, 500])
def test_false_alarms_stay_within_alpha_at_equal_and_unequal_sizes(rows: int) -> None:
    """The reference is a sample too: taking it for exact would alarm half of the time at equal sizes."""
    mix = np.array([0.4, 0.3, 0.2, 0.06, 0.03, 0.01])

    def judge(rng: np.random.Generator) -> bool:
        before, now = (dict(zip("abcdef", map(int, rng.multinomial(n, mix)), strict=True)) for n in (500, rows))
        return chi_squared(before, now, Limits(0.05)).verdict is Verdict.FAIL

    assert alarms(judge, 600) <= at_most(0.05, 600)
