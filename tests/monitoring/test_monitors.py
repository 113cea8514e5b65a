"""Each monitor has three states, reports the plain rule, and keeps its error rate."""

import numpy as np
import pytest
from scipy.stats import binom

from mlops_assets.monitoring.monitors import correctness_falling, f1_drop, missing_values, prediction_mix
from mlops_assets.monitoring.quality import Quality
from mlops_assets.spec import MonitorSpec
from mlops_assets.verdict import Verdict

SPEC = MonitorSpec()


def quality(f1: float, high: float, labels: int = 90) -> Quality:
    return Quality(labels, labels, accuracy=f1, f1_weighted=f1, f1_low=f1 - 0.05, f1_high=high)


@pytest.mark.parametrize(
    ("seen", "verdict", "plain"),
    [
        (quality(0.94, 0.97), Verdict.PASS, False),
        (quality(0.88, 0.93), Verdict.PASS, True),  # below the limit, but 90 labels do not prove it
        (quality(0.70, 0.78), Verdict.FAIL, True),
        (quality(0.70, 0.88, labels=12), Verdict.INSUFFICIENT_DATA, True),
        (Quality(40, 0), Verdict.INSUFFICIENT_DATA, None),
    ],
)
def test_f1_drop_fails_only_when_the_labels_prove_it(seen: Quality, verdict: Verdict, plain: bool | None) -> None:
    result = f1_drop(seen, promised_f1=0.95, spec=SPEC)
    assert (result.verdict, result.plain) == (verdict, plain)
    assert result.limit == pytest.approx(0.90)


@pytest.mark.parametrize(
    ("missing", "rows", "verdict"),
    [
        (0, 200, Verdict.PASS),
        (12, 200, Verdict.PASS),
        (30, 200, Verdict.FAIL),
        (40, 40, Verdict.FAIL),
        (0, 20, Verdict.INSUFFICIENT_DATA),
        (0, 0, Verdict.INSUFFICIENT_DATA),
    ],
)
def test_missing_values_pass_fail_or_cannot_say(missing: int, rows: int, verdict: Verdict) -> None:
    assert missing_values("customer_id", missing, rows, SPEC).verdict is verdict


def test_missing_values_at_the_limit_alarm_in_at_most_one_per_cent() -> None:
    counts = np.random.default_rng(7).binomial(300, SPEC.max_missing_share, size=2000)
    alarms = sum(missing_values("c", int(missing), 300, SPEC).verdict is Verdict.FAIL for missing in counts)
    assert alarms <= binom.ppf(0.999, 2000, 0.01)


def test_more_missing_than_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="customer_id: 3 of 2"):
        missing_values("customer_id", 3, 2, SPEC)


def test_prediction_mix_is_reported_and_never_acts() -> None:
    reference = {"query": 500, "refund": 500}
    same = prediction_mix(reference, {"query": 120, "refund": 110})
    moved = prediction_mix(reference, {"query": 20, "refund": 210, "complaint": 40})
    few = prediction_mix(reference, {"refund": 12})
    none = prediction_mix(reference, {})
    assert [r.verdict for r in (same, moved, few, none)] == [
        Verdict.PASS,
        Verdict.FAIL,
        Verdict.INSUFFICIENT_DATA,
        Verdict.INSUFFICIENT_DATA,
    ]
    assert (few.plain, none.plain) == (True, None)
    assert not any(r.acts for r in (same, moved, few, none))


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ((0.95, 0.94, 0.93, 0.92), Verdict.FAIL),
        ((0.99, 0.92, 0.94, 0.93, 0.92), Verdict.PASS),
        ((0.95, 0.94, 0.93), Verdict.INSUFFICIENT_DATA),
        ((), Verdict.INSUFFICIENT_DATA),
    ],
)
def test_correctness_falling_three_days_is_reported(accuracies: tuple[float, ...], verdict: Verdict) -> None:
    result = correctness_falling([quality(value, value) for value in accuracies], SPEC)
    assert (result.verdict, result.acts) == (verdict, False)


def test_a_day_with_few_labels_is_no_day_of_a_falling_row() -> None:
    days = [quality(0.95, 1), quality(0.94, 1), quality(0.1, 1, labels=3), quality(0.92, 1)]
    assert correctness_falling(days, SPEC).verdict is Verdict.INSUFFICIENT_DATA
