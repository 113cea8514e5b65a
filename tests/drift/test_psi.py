from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlops_assets.drift.frozen_bins import count_bins, freeze_edges, judge_counts
from mlops_assets.drift.psi import DIVERGENCE, psi
from mlops_assets.drift.result import Limits
from mlops_assets.verdict import Verdict
from tests.drift.simulate import alarms, at_most

DESIGN = Limits(alpha=0.01, effect=0.2)


@pytest.mark.slow
@given(arrays(np.float64, st.integers(1, 80), elements=st.integers(-4, 4).map(float)))
def test_every_row_falls_into_one_bin(values: np.ndarray) -> None:
    edges = freeze_edges(np.sort(values))
    assert count_bins(edges, values).sum() == len(values)


def test_point_masses_get_a_bin_of_their_own() -> None:
    values = np.concatenate([np.zeros(60), np.linspace(1, 40, 40)])
    edges = freeze_edges(values)
    assert count_bins(edges, np.zeros(7)).max() == 7
    assert count_bins(edges, np.array([-1.0, 0.0, 0.5])).max() == 1


@pytest.mark.parametrize("moved", [3.0, 7.0])
def test_leaving_a_constant_is_seen_on_either_side(moved: float) -> None:
    assert psi(np.full(200, 5.0), np.full(200, moved), DESIGN).verdict is Verdict.FAIL


def test_one_outlier_in_the_window_cannot_hide_a_shift() -> None:
    rng = np.random.default_rng(0)
    reference, current = rng.normal(size=2000), rng.normal(1, 1, size=2000)
    hidden = np.append(current, 1e9)
    assert psi(reference, hidden).statistic == pytest.approx(psi(reference, current).statistic, rel=0.05)


def test_the_plain_rule_alarms_on_small_quiet_windows_and_ours_does_not() -> None:
    """Twenty classes, 50 rows: PSI > 0.2 nearly always, by noise alone."""
    mix = np.full(20, 0.05)

    def judged(rng: np.random.Generator) -> tuple[bool, bool]:
        result = judge_counts(DIVERGENCE, rng.multinomial(5000, mix), rng.multinomial(50, mix), DESIGN, "label")
        return result.plain_rule["PSI > 0.2"], result.verdict is Verdict.FAIL

    assert alarms(lambda rng: judged(rng)[0], 200) > 150
    assert alarms(lambda rng: judged(rng)[1], 600) <= at_most(0.01, 600)


def test_a_shift_of_one_standard_deviation_is_found_in_100_rows() -> None:
    def judge(rng: np.random.Generator) -> bool:
        return psi(rng.normal(size=2000), rng.normal(1.0, 1, 100), DESIGN).verdict is Verdict.FAIL

    assert alarms(judge, 100) >= 95
