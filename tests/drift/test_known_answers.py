"""Known answers of other code bases for every statistic, one test per case.

Two cases rest on a definition that is not ours: a PSI whose empty bins get a tiny floor, so that the floor
decides the figure, and a Jensen-Shannon distance over smoothed cumulative bins.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from mlops_assets.drift import anderson_darling, chi_squared, energy, hellinger, jensen_shannon
from mlops_assets.drift import cramer_von_mises as cvm
from mlops_assets.drift import kolmogorov_smirnov as ks
from mlops_assets.drift import wasserstein as w1
from mlops_assets.drift.frozen_bins import smoothed_shares
from mlops_assets.drift.mmd import unbiased_mmd2
from mlops_assets.drift.psi import index
from mlops_assets.drift.result import Limits
from tests.drift.real_data import ROOT

Case = dict[str, Any]
FILE = ROOT / "drift_known_answers" / "cases.json"
CASES: list[Case] = json.loads(FILE.read_text()) if FILE.exists() else []
ANY = Limits(min_rows=1)


def pair() -> tuple[np.ndarray, np.ndarray]:
    """N(1, 1) and N(5, 2), 100 rows each, both from a generator with the seed the cases name."""
    return np.random.RandomState(31).normal(1, 1, 100), np.random.RandomState(31).normal(5, 2, 100)


def halves() -> tuple[np.ndarray, np.ndarray]:
    """Twice 500 rows of N(1, 1)."""
    legacy = np.random.RandomState(31)
    return legacy.normal(1, 1, 500), legacy.normal(1, 1, 500)


def named(case: Case) -> tuple[np.ndarray, np.ndarray]:
    return halves() if case["x"] in ("seed31 N(1,1,500)", "as above") else pair()


def histograms(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Counts in ten equal bins over both samples, as the cases want them."""
    first, second = named(case)
    edges = np.histogram_bin_edges(np.concatenate([first, second]), 10)
    return np.histogram(first, edges)[0], np.histogram(second, edges)[0]


def shares(counts: Any) -> np.ndarray:
    return np.asarray(counts) / np.sum(counts)


def goodness(case: Case) -> tuple[float, float]:
    test = chi_squared.goodness_of_fit(np.array(case["obs"]), np.array(case["exp"]))
    return test.statistic, test.p_value


def evidently_goodness(case: Case) -> tuple[None, float]:
    test = chi_squared.goodness_of_fit(np.array(case["cur_counts"]), np.array(case["ref_counts"]))
    return None, test.p_value


def table(case: Case) -> tuple[float, float]:
    test = chi_squared.contingency(np.array(case["table"]))
    return test.statistic, test.p_value


def exact_ks(case: Case) -> tuple[float | None, float | None]:
    result = ks.kolmogorov_smirnov(np.array(case["a"], float), np.array(case["b"], float), ANY)
    assert result.method == "exact"
    return result.statistic, result.p_value


def mmd2(case: Case) -> tuple[float, None]:
    legacy = np.random.RandomState(case["seed"])
    first, second = (legacy.normal(*case[side])[:, None] for side in ("p", "q"))
    return unbiased_mmd2(first, second, sigma=0.5), None


def anderson(case: Case) -> tuple[None, float | None]:
    return None, anderson_darling.anderson_darling(np.array(case["ref"]), np.array(case["cur"]), ANY).p_value


def cramer(_: Case) -> tuple[None, float | None]:
    samples = (norm.rvs(size=100, random_state=seed) for seed in (0, 1))
    return None, cvm.cramer_von_mises(*samples, ANY).p_value


ANSWERS: dict[str, Callable[[Case], tuple[float | None, float | None]]] = {
    "chi2_gof_rescaled": goodness,
    "chi2_gof_pvalue_ref_rescaled": evidently_goodness,
    "chi2_contingency": table,
    "ks_2samp_exact": exact_ks,
    "wasserstein1": lambda case: (w1.wasserstein(*named(case)).statistic, None),
    "energy_distance_scipy": lambda case: (energy.energy(*named(case)).statistic, None),
    "hellinger_10_bins": lambda case: (hellinger.distance(*map(shares, histograms(case))), None),
    "hellinger_categorical": lambda c: (hellinger.distance(shares(c["ref_counts"]), shares(c["cur_counts"])), None),
    "mmd2_unbiased_rbf_sigma0.5": mmd2,
    "anderson_ksamp_pvalue": anderson,
    "cvm_2samp_pvalue": cramer,
}
OTHERWISE_DEFINED = {"psi_10_equal_width_bins_tiny_floor", "js_distance_smoothed_cdf_9_bins"}


def test_every_case_has_its_test() -> None:
    if not CASES:
        pytest.skip(f"the known answers are not beside this checkout ({FILE})")
    assert len(CASES) == 31
    assert {case["stat"] for case in CASES} == ANSWERS.keys() | OTHERWISE_DEFINED


@pytest.mark.parametrize("case", [c for c in CASES if c["stat"] in ANSWERS], ids=lambda c: c["stat"])
def test_known_answer(case: Case) -> None:
    statistic, p_value = ANSWERS[case["stat"]](case)
    tolerance = case.get("tol", 1e-5)
    if case.get("expected_stat") is not None:
        assert statistic == pytest.approx(float(case["expected_stat"]), rel=1e-5, abs=tolerance)
    if case.get("expected_p") is not None:
        assert p_value == pytest.approx(float(case["expected_p"]), abs=tolerance)


@pytest.mark.parametrize("case", [c for c in CASES if "psi" in c["stat"]], ids=lambda c: c["x"])
def test_psi_is_not_decided_by_the_floor_of_an_empty_bin(case: Case) -> None:
    ours = index(*map(smoothed_shares, histograms(case)))
    if case["expected_stat"] and float(case["expected_stat"]) > 1:
        assert 1 < ours < 10  # theirs is 461: a tiny share in an empty bin counts as much as one likes
    else:
        assert ours == pytest.approx(float(case["expected_stat"]), abs=0.002)  # no bin is empty: nearly the same


@pytest.mark.parametrize("case", [c for c in CASES if "js" in c["stat"]], ids=lambda c: c["stat"])
def test_jensen_shannon_is_over_the_bins_themselves(case: Case) -> None:
    """Theirs is over smoothed cumulative bins (0.6701); over the ten plain bins the case notes 0.65888."""
    assert jensen_shannon.distance(*map(shares, histograms(case))) == pytest.approx(0.65888, abs=1e-5)
