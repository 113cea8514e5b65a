"""Each monitor has three states, reports the plain rule, and keeps its error rate."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from mlops_assets.f1 import Answered, f1_bounds, weighted_f1
from mlops_assets.monitoring.catalogue import CATALOGUE, LOOKS
from mlops_assets.monitoring.correctness import Correctness
from mlops_assets.monitoring.estimate import Estimate
from mlops_assets.monitoring.monitors import (
    correctness,
    estimated_f1,
    f1_drop,
    falls,
    feature_shift,
    missing_values,
    prediction_mix,
    score,
)
from mlops_assets.monitoring.quality import CONFIDENCE, Quality
from mlops_assets.spec import MonitorSpec
from mlops_assets.verdict import Verdict
from tests.monitoring.test_quality import DAY

SPEC = MonitorSpec()
PAGE = score(0.002)


def quality(f1: float, high: float, labels: int = 90) -> Quality:
    return Quality(labels, labels, accuracy=f1, f1_weighted=f1, f1_low=f1 - 0.05, f1_high=high)


def test_every_monitor_says_what_it_asks_how_often_and_over_what() -> None:
    assert all(m.question and m.cadence and m.window for m in CATALOGUE.values())
    assert set(LOOKS) == {"f1", "correctness", "estimated_f1", "missing_values", "latency", "throughput"}


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


def test_a_page_needs_more_evidence_than_a_note() -> None:
    seen = quality(0.84, 0.89)
    assert f1_drop(seen, 0.95, SPEC).verdict is Verdict.FAIL
    assert f1_drop(seen, 0.95, SPEC, act_at=PAGE).verdict is Verdict.PASS


def seven_labels(accuracy: float) -> np.ndarray:
    """Shares (7, 7) of actual by predicted label; wrong answers fall on the other labels alike."""
    support = np.array([0.05, 0.05, 0.25, 0.15, 0.25, 0.2, 0.05])
    wrong = (1 - accuracy) * support[:, None] * (1 - np.eye(7)) / 6
    return np.diag(support * accuracy) + wrong


@pytest.mark.parametrize(("accuracy", "rows"), [(0.91, 40), (0.80, 200)])
def test_a_model_exactly_at_the_limit_is_called_worse_at_most_as_often_as_stated(accuracy: float, rows: int) -> None:
    """300 seeded days at each of two limits."""
    shares = seven_labels(accuracy)
    limit = float(weighted_f1(shares[None])[0])
    days = np.random.default_rng(1).multinomial(rows, shares.ravel() / shares.sum(), size=300).reshape(-1, 7, 7)
    scores = []
    for run, counts in enumerate(days):
        answered = Answered(np.argwhere(counts), counts[counts > 0].astype(float), labels=7)
        f1 = float(answered.f1().weighted[0])
        seen = Quality(rows, rows, f1, f1, *f1_bounds(answered, CONFIDENCE, seed=run))
        scores.append(f1_drop(seen, limit + SPEC.max_f1_drop, SPEC).score or 0.0)
    for alpha in (0.05, 0.01):
        assert sum(found >= score(alpha) for found in scores) <= binom.ppf(0.999, 300, alpha)


def expected(f1: float, width: float = 0.05) -> Estimate:
    return Estimate(200, f1, f1 - width, f1 + width, f1, f1 - width, f1 + width)


@pytest.mark.parametrize(
    ("estimate", "verdict", "plain"),
    [
        (expected(0.95), Verdict.PASS, False),
        (expected(0.87), Verdict.PASS, True),
        (expected(0.70), Verdict.FAIL, True),
        (None, Verdict.INSUFFICIENT_DATA, None),
    ],
)
def test_an_estimate_acts_when_even_its_upper_end_misses_the_promise(
    estimate: Estimate | None, verdict: Verdict, plain: bool | None
) -> None:
    result = estimated_f1(estimate, 0.95, SPEC, PAGE)
    assert (result.verdict, result.plain) == (verdict, plain)


def test_correctness_acts_by_its_e_process_and_reports_three_falling_days() -> None:
    falling = [quality(value, value) for value in (0.95, 0.94, 0.93, 0.92)]
    noise = correctness(Correctness(400, 30, 0.91, 0.5, DAY), falling, SPEC, PAGE)
    assert (noise.verdict, noise.plain) == (Verdict.PASS, True)
    real = correctness(Correctness(400, 120, 0.91, 30.0, DAY), falling[:1], SPEC, PAGE)
    assert (real.verdict, real.plain) == (Verdict.FAIL, None)
    assert "since 2026-03-01" in real.message
    few = correctness(Correctness(12, 9, 0.91, 9.0, DAY), [], SPEC, PAGE)
    assert few.verdict is Verdict.INSUFFICIENT_DATA


@pytest.mark.parametrize(
    ("accuracies", "fell"),
    [
        ((0.95, 0.94, 0.93, 0.92), True),
        ((0.99, 0.92, 0.94, 0.93, 0.92), False),
        ((0.95, 0.94, 0.93), None),
        ((), None),
    ],
)
def test_accuracy_that_fell_three_days_in_a_row(accuracies: tuple[float, ...], fell: bool | None) -> None:
    assert falls([quality(value, value) for value in accuracies], SPEC) is fell


def test_a_day_with_few_labels_is_no_day_of_a_falling_row() -> None:
    days = [quality(0.95, 1), quality(0.94, 1), quality(0.1, 1, labels=3), quality(0.92, 1)]
    assert falls(days, SPEC) is None


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
    assert missing_values({"customer_id": missing, "text": 0}, rows, SPEC, PAGE).verdict is verdict


def test_the_worst_column_is_named() -> None:
    result = missing_values({"text": 3, "customer_id": 90}, 300, SPEC, PAGE)
    assert result.message.startswith("customer_id: 90 of 300 values missing (30.0%)")


def test_missing_values_at_the_limit_alarm_at_most_as_often_as_stated() -> None:
    counts = np.random.default_rng(7).binomial(300, SPEC.max_missing_share, size=(2000, 3))
    found = [missing_values(dict(zip("abc", row, strict=True)), 300, SPEC, score(0.01)) for row in counts.tolist()]
    assert sum(result.verdict is Verdict.FAIL for result in found) <= binom.ppf(0.999, 2000, 0.01)


@pytest.mark.parametrize(("missing", "rows"), [({"customer_id": 3}, 2), ({}, 2), ({"customer_id": -1}, 2)])
def test_counts_that_cannot_be_are_refused(missing: dict[str, int], rows: int) -> None:
    with pytest.raises(ValueError, match=f"of {rows} rows missing"):
        missing_values(missing, rows, SPEC, PAGE)


def drift(group: str, *results: dict[str, Any], verdict: str = "pass") -> dict[str, Any]:
    """A day's drift document."""
    return {"rows": 200, "groups": {group: {"verdict": verdict, "results": list(results)}}}


def result(column: str, statistic: str, value: float, p: float, verdict: str = "pass") -> dict[str, Any]:
    figures = {"statistic": value, "p_value": p, "effect": value, "message": ""}
    return {"column": column, "statistic_name": statistic, "verdict": verdict, **figures}


def test_the_label_mix_acts_as_the_drift_engine_judged_it_and_reports_psi() -> None:
    noisy = drift("prediction", result("predicted", "psi", 0.3, 0.2), result("*", "black_box_shift", 0.1, 0.5))
    assert (prediction_mix(noisy).verdict, prediction_mix(noisy).plain) == (Verdict.PASS, True)
    moved = drift("prediction", result("predicted", "psi", 0.9, 1e-9, "fail"))
    assert prediction_mix(moved).verdict is Verdict.FAIL
    assert prediction_mix(drift("prediction")).verdict is Verdict.INSUFFICIENT_DATA


def test_features_act_as_the_drift_engine_judged_them_and_report_the_smallest_p() -> None:
    noisy = drift("feature", result("spend", "kolmogorov_smirnov", 0.1, 0.004))
    assert (feature_shift(noisy).verdict, feature_shift(noisy).plain) == (Verdict.PASS, True)
    moved = drift("feature", result("spend", "kolmogorov_smirnov", 0.5, 1e-9, "fail"), verdict="fail")
    assert "spend (kolmogorov_smirnov, effect 0.5)" in feature_shift(moved).message
    assert feature_shift(drift("prediction")).verdict is Verdict.ERROR


def test_since_when_is_said_only_of_what_acts() -> None:
    quiet = correctness(Correctness(400, 30, 0.91, 0.5, DAY + timedelta(days=1)), [], SPEC, PAGE)
    assert "since" not in quiet.message
