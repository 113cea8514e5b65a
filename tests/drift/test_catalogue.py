"""What every statistic has to do, whichever it is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlops_assets.drift.catalogue import CATEGORICAL, NUMERIC, Categorical, Numeric
from mlops_assets.drift.compiled import merge_integral
from mlops_assets.drift.gap_integral import integral
from mlops_assets.drift.result import DriftInputError, Limits
from mlops_assets.verdict import Verdict
from tests.drift.simulate import alarms, at_most

numeric = pytest.mark.parametrize("compare", NUMERIC.values(), ids=NUMERIC)
categorical = pytest.mark.parametrize("compare", CATEGORICAL.values(), ids=CATEGORICAL)
ANY = Limits(min_rows=1)
MIX = np.array([0.5, 0.3, 0.15, 0.05])


def mixed(rng: np.random.Generator, rows: int, shares: np.ndarray = MIX) -> dict[str, int]:
    return dict(zip("abcd", map(int, rng.multinomial(rows, shares)), strict=True))


@pytest.mark.slow
@numeric
def test_false_alarms_stay_within_alpha(compare: Numeric) -> None:
    def judge(rng: np.random.Generator) -> bool:
        return compare(rng.exponential(size=300), rng.exponential(size=100), Limits(0.05)).verdict is Verdict.FAIL

    assert alarms(judge, 200) <= at_most(0.05, 200)


@categorical
def test_false_alarms_stay_within_alpha_over_categories(compare: Categorical) -> None:
    def judge(rng: np.random.Generator) -> bool:
        return compare(mixed(rng, 300), mixed(rng, 100), Limits(0.05)).verdict is Verdict.FAIL

    assert alarms(judge, 300) <= at_most(0.05, 300)


@numeric
def test_a_shift_of_one_standard_deviation_is_found_in_100_rows(compare: Numeric) -> None:
    def judge(rng: np.random.Generator) -> bool:
        return compare(rng.normal(size=500), rng.normal(1, 1, 100), Limits()).verdict is Verdict.FAIL

    assert alarms(judge, 20) == 20


@pytest.mark.slow
@numeric
@settings(max_examples=20)
@given(
    a=arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e6, 1e6, width=32)),
    b=arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e6, 1e6, width=32)),
)
def test_any_finite_samples_get_a_verdict_and_a_p_value(compare: Numeric, a: np.ndarray, b: np.ndarray) -> None:
    result = compare(a, b, Limits(min_rows=2))
    if min(len(a), len(b)) < 2:
        assert result.verdict is Verdict.INSUFFICIENT_DATA
        return
    assert result.verdict in (Verdict.PASS, Verdict.FAIL)
    assert result.p_value is not None
    assert 0 <= result.p_value <= 1
    assert result.effect is not None
    assert np.isfinite(result.effect)


@numeric
def test_infinite_values_are_ranked_or_refused_but_never_a_nan(compare: Numeric) -> None:
    values = np.append(np.arange(99.0), np.inf)
    if compare in (NUMERIC["wasserstein"], NUMERIC["energy"]):
        with pytest.raises(DriftInputError, match="infinite"):
            compare(np.arange(100.0), values, ANY)
    else:
        p_value = compare(np.arange(100.0), values, ANY).p_value
        assert p_value is not None
        assert 0 <= p_value <= 1


@numeric
@pytest.mark.parametrize("rows", [0, 1, 29])
def test_small_windows_are_insufficient_data(compare: Numeric, rows: int) -> None:
    assert compare(np.arange(100.0), np.arange(float(rows)), Limits()).verdict is Verdict.INSUFFICIENT_DATA


@numeric
def test_a_constant_that_stays_is_quiet_and_one_that_moves_is_not(compare: Numeric) -> None:
    assert compare(np.ones(100), np.ones(100), Limits()).verdict is Verdict.PASS
    assert compare(np.ones(100), np.full(100, 2.0), Limits()).verdict is Verdict.FAIL


@categorical
@settings(max_examples=20)
@given(a=st.lists(st.sampled_from("abcdef"), min_size=1), b=st.lists(st.sampled_from("abcdef"), min_size=1))
def test_any_categories_get_a_verdict_and_a_p_value(compare: Categorical, a: list[str], b: list[str]) -> None:
    result = compare(Counter(a), Counter(b), ANY)
    assert result.verdict in (Verdict.PASS, Verdict.FAIL)
    assert result.p_value is not None
    assert 0 <= result.p_value <= 1


@pytest.mark.slow
@settings(max_examples=30)
@given(
    a=arrays(np.float64, st.integers(1, 40), elements=st.integers(-9, 9).map(float)),
    b=arrays(np.float64, st.integers(1, 40), elements=st.integers(-9, 9).map(float)),
)
def test_the_merge_of_large_samples_gives_the_same_integrals(a: np.ndarray, b: np.ndarray) -> None:
    a, b = np.sort(a), np.sort(b)
    for power in (1, 2):
        assert merge_integral(a, b, power) == pytest.approx(integral(a, b, power), abs=1e-9)
