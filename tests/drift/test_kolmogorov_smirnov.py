from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ks_2samp

from mlops_assets.drift.cells import COMPILED_ROWS, Sample
from mlops_assets.drift.kolmogorov_smirnov import distance, exact_p_value, kolmogorov_smirnov, significance
from mlops_assets.drift.result import Limits
from mlops_assets.verdict import Verdict
from tests.drift.simulate import alarms, at_most

samples = arrays(np.float64, st.integers(1, 60), elements=st.integers(-5, 5).map(float))


@pytest.mark.slow
@settings(max_examples=50)
@given(samples, samples)
def test_distance_is_that_of_scipy_ties_or_not(a: np.ndarray, b: np.ndarray) -> None:
    assert distance(Sample(np.sort(a)), b) == pytest.approx(ks_2samp(a, b, method="asymp").statistic, abs=1e-12)


def shapes(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Columns that are hard to cut into cells: ties, point masses, far tails, all of a value, tiny, infinite."""
    normal = rng.normal(size=rows)
    return {
        "normal": normal,
        "shifted": normal + 0.02,
        "counts": rng.poisson(5, rows).astype(float),
        "half zeros": np.where(rng.random(rows) < 0.5, 0.0, normal),
        "tails": np.exp(5 * normal),
        "constant": np.full(rows, 0.3),
        "denormal": normal * 5e-324,
        "huge": normal * 1e307,
        "infinite": np.where(rng.random(rows) < 0.1, np.inf, normal),
    }


@pytest.mark.slow
@pytest.mark.parametrize("before", shapes(np.random.default_rng(0), 1))
@pytest.mark.parametrize("now", shapes(np.random.default_rng(0), 1))
def test_large_windows_are_not_sorted_and_the_distance_is_exact_all_the_same(before: str, now: str) -> None:
    first, second = np.random.default_rng(1).spawn(2)
    reference, current = shapes(first, 30_000)[before], shapes(second, COMPILED_ROWS)[now]
    pooled = np.concatenate([reference, current])
    ordered, sorted_window = np.sort(reference), np.sort(current)
    plain = np.searchsorted(ordered, pooled, side="right") / len(ordered) - np.searchsorted(
        sorted_window, pooled, side="right"
    ) / len(current)
    assert distance(Sample(ordered), current) == pytest.approx(np.abs(plain).max(), abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (7, 5), (9, 10), (40, 40), (30, 55), (200, 2_000)])
def test_exact_p_value_is_that_of_scipy(n: int, m: int) -> None:
    rng = np.random.default_rng(n + m)
    a, b = rng.normal(size=n), rng.normal(0.6, 1, size=m)
    scipy = ks_2samp(a, b, method="exact")
    assert exact_p_value(scipy.statistic, n, m) == pytest.approx(scipy.pvalue, rel=1e-8)


def test_tiny_exact_p_values_keep_their_accuracy() -> None:
    """Complete separation has two of all orderings: no 1 - p that rounds to zero."""
    assert exact_p_value(1.0, 20, 20) == pytest.approx(2 / 137_846_528_820, rel=1e-9)


def test_large_samples_use_a_fast_law_that_agrees() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=150_000), rng.normal(0.01, 1, size=150_000)
    p_value, method = significance(distance(Sample(np.sort(a)), b), len(a), len(b))
    assert method == "asymptotic (kolmogorov)"
    assert p_value == pytest.approx(ks_2samp(a, b, method="asymp").pvalue, abs=1e-5)


def test_a_significant_but_small_shift_is_quiet_and_still_reported() -> None:
    rng = np.random.default_rng(0)
    result = kolmogorov_smirnov(rng.normal(size=50_000), rng.normal(0.05, 1, 50_000), Limits(effect=0.05))
    assert result.verdict is Verdict.PASS
    assert result.plain_rule == {"KS p < 0.01": True}


def test_too_few_rows_is_no_verdict() -> None:
    assert kolmogorov_smirnov(np.arange(100.0), np.arange(5.0)).verdict is Verdict.INSUFFICIENT_DATA
    assert kolmogorov_smirnov(np.arange(100.0), np.array([]), Limits(min_rows=0)).verdict is Verdict.INSUFFICIENT_DATA


@pytest.mark.slow
@pytest.mark.parametrize("rows", [50, 200])
def test_false_alarms_stay_within_alpha(rows: int) -> None:
    def judge(rng: np.random.Generator) -> bool:
        return kolmogorov_smirnov(rng.normal(size=500), rng.normal(size=rows), Limits(0.05)).verdict is Verdict.FAIL

    assert alarms(judge, 200) <= at_most(0.05, 200)


@pytest.mark.slow
def test_a_shift_of_half_a_standard_deviation_is_found_in_200_rows() -> None:
    def judge(rng: np.random.Generator) -> bool:
        return kolmogorov_smirnov(rng.normal(size=2000), rng.normal(0.5, 1, 200)).verdict is Verdict.FAIL

    assert alarms(judge, 100) >= 95
