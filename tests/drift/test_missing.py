from __future__ import annotations

import numpy as np
import pytest

from mlops_assets.drift.missing import missing
from mlops_assets.drift.result import Limits
from mlops_assets.verdict import Verdict
from tests.drift.simulate import alarms, at_most


def test_a_column_that_goes_empty_drifts() -> None:
    assert missing((0, 1000), (100, 100)).verdict is Verdict.FAIL


def test_a_column_that_was_always_half_empty_is_quiet_and_the_plain_rule_is_reported() -> None:
    result = missing((500, 1000), (50, 100))
    assert result.verdict is Verdict.PASS
    assert result.plain_rule == {"missing > 5 %": True}


def test_a_significant_change_of_half_a_percent_is_quiet() -> None:
    result = missing((0, 100_000), (500, 100_000))
    assert result.p_value < 1e-9
    assert result.verdict is Verdict.PASS


def test_rows_that_repeat_one_another_change_what_a_share_tells_and_not_the_share() -> None:
    result = missing((0, 5000), (1, 300), independent=(1.0, 2 / 300))
    assert (result.statistic, result.effect) == (1 / 300, 1 / 300)
    assert (result.n_current, result.p_value, result.verdict) == (300, 1.0, Verdict.PASS)
    assert missing((0, 5000), (150, 300), independent=(1.0, 4 / 300)).p_value > missing((0, 5000), (150, 300)).p_value


@pytest.mark.slow
def test_false_alarms_stay_within_alpha_for_thin_and_for_full_tables() -> None:
    def judge(rng: np.random.Generator) -> bool:
        share = rng.choice([0.01, 0.3])
        counts = (int(rng.binomial(1000, share)), 1000), (int(rng.binomial(100, share)), 100)
        return missing(*counts, Limits(0.05)).verdict is Verdict.FAIL

    assert alarms(judge, 800) <= at_most(0.05, 800)
