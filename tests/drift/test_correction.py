from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from mlops_assets.drift.correction import benjamini_hochberg
from tests.drift.simulate import alarms, at_most


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_adjusted_p_values_are_those_of_scipy(p_values: list[float]) -> None:
    np.testing.assert_allclose(benjamini_hochberg(p_values), false_discovery_control(p_values))


def test_nothing_to_correct() -> None:
    assert benjamini_hochberg([]) == []


def test_with_no_change_anywhere_any_rejection_is_as_rare_as_stated() -> None:
    assert alarms(lambda rng: min(benjamini_hochberg(rng.uniform(size=30))) <= 0.05, 2000) <= at_most(0.05, 2000)
