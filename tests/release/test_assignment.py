"""A customer stays in one arm, and the split has its declared weight."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, kstest

from mlops_assets.release.assignment import in_canary, position

weights = st.floats(0, 1)


@given(st.text(), st.text(), weights)
def test_the_same_entity_always_gets_the_same_arm(entity: str, salt: str, weight: float) -> None:
    assert in_canary(entity, salt, weight) == in_canary(entity, salt, weight)


@given(st.text(), st.text(), weights, weights)
def test_a_larger_weight_only_moves_entities_into_the_canary(entity: str, salt: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert in_canary(entity, salt, large) or not in_canary(entity, salt, small)


@given(st.text(), st.text())
def test_weight_zero_takes_nobody_and_weight_one_everybody(entity: str, salt: str) -> None:
    assert not in_canary(entity, salt, 0.0)
    assert in_canary(entity, salt, 1.0)


def test_the_share_of_customers_is_the_weight() -> None:
    hits = sum(in_canary(f"c{number}", "rollout-1", 0.1) for number in range(20_000))
    assert binomtest(hits, 20_000, 0.1).pvalue > 0.001


def test_positions_are_uniform_and_another_salt_draws_other_customers() -> None:
    first = np.array([position(f"c{number}", "one") for number in range(5_000)])
    second = np.array([position(f"c{number}", "two") for number in range(5_000)])
    assert kstest(first, "uniform").pvalue > 0.001
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
