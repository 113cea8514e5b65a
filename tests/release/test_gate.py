"""The gate: three outcomes, each with its numbers; what is missing never passes."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from mlops_assets.f1 import Answered
from mlops_assets.release.gate import (
    Champion,
    ChampionUnavailable,
    Claim,
    FirstModel,
    GateDecision,
    GateInputs,
    MismatchedInputs,
    Waiver,
    judge,
)
from mlops_assets.release.leakage import judge_leakage
from mlops_assets.spec import GateSpec
from mlops_assets.storage import to_json
from mlops_assets.verdict import Verdict
from tests.release.test_leakage import CLEAN

LABELS = ("complaint", "farewell", "greeting", "query")
SPEC = GateSpec()


def answers(truth: np.ndarray, accuracy: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wrong = rng.random(truth.size) > accuracy
    return np.where(wrong, (truth + rng.integers(1, len(LABELS), truth.size)) % len(LABELS), truth)


def candidate(rows: int = 2_000, accuracy: float = 0.96, seed: int = 1) -> GateInputs:
    """A sound candidate; tests break one thing at a time."""
    truth = np.random.default_rng(0).integers(0, len(LABELS), rows)
    predicted = answers(truth, accuracy, seed)
    confidence = np.eye(len(LABELS))[predicted] * (accuracy - (1 - accuracy) / 3) + (1 - accuracy) / 3
    newest = np.zeros(rows, bool)
    newest[-rows // 8 :] = True
    return GateInputs(
        labels=LABELS,
        truth=truth,
        predicted=predicted,
        champion=Champion("1", predicted),
        newest=newest,
        probabilities=confidence,
        latencies_ms=np.random.default_rng(0).gamma(4, 3, 400),
        leakage=CLEAN,
    )


def claim(decision: GateDecision, name: str) -> Claim:
    return next(claim for claim in decision.claims if claim.name == name)


def test_a_sound_candidate_passes_with_every_figure_stated() -> None:
    decision = judge(candidate(), SPEC)
    assert decision.verdict is Verdict.PASS, decision.summary
    assert decision.released
    assert [claim.name for claim in decision.claims] == [
        "f1.lower_bound",
        "champion.overall",
        "champion.newest",
        *(f"champion.label.{label}" for label in LABELS),
        "latency.percentile",
        *(claim.name for claim in judge_leakage(CLEAN, SPEC)),
        "calibration.error",
    ]


# The absolute bound


def test_a_point_estimate_above_the_limit_is_not_enough() -> None:
    decision = judge(candidate(rows=400, accuracy=0.93, seed=2), SPEC)
    f1 = claim(decision, "f1.lower_bound")
    assert f1.verdict is Verdict.INSUFFICIENT_DATA
    assert f1.value is not None
    assert f1.value < 0.92
    assert f1.rows_needed is not None
    assert f1.rows_needed > 400
    assert f"about {f1.rows_needed} rows are needed" in f1.message


def test_an_estimate_below_the_limit_fails_whatever_the_rows() -> None:
    f1 = claim(judge(candidate(accuracy=0.9), SPEC), "f1.lower_bound")
    assert (f1.verdict, f1.rows_needed) == (Verdict.FAIL, None)


def test_a_small_test_set_is_insufficient_even_without_an_error() -> None:
    f1 = claim(judge(candidate(rows=299, accuracy=1.0), SPEC), "f1.lower_bound")
    assert (f1.verdict, f1.rows_needed) == (Verdict.INSUFFICIENT_DATA, 300)


def test_rows_of_few_customers_prove_less() -> None:
    """1,200 rows at 0.94: enough of as many customers, too few of 60 whose messages are answered alike."""
    alike = np.repeat(np.arange(60), 20)
    inputs = candidate(rows=1_200, accuracy=1.0)
    wrong = np.isin(alike, [3, 17, 31, 50])
    inputs = replace(inputs, predicted=np.where(wrong, (inputs.truth + 1) % len(LABELS), inputs.truth))
    by_rows, by_customers = (
        claim(judge(replace(inputs, customers=customers), SPEC), "f1.lower_bound")
        for customers in (np.arange(1_200), alike)
    )
    assert by_rows.verdict is Verdict.PASS
    assert by_customers.verdict is Verdict.INSUFFICIENT_DATA
    assert "on 1200 rows of 60 customers" in by_customers.message


def test_no_error_seen_is_not_certainty() -> None:
    f1 = claim(judge(candidate(rows=300, accuracy=1.0), SPEC), "f1.lower_bound")
    assert f1.value == pytest.approx(0.99, abs=0.001)


def test_a_test_set_that_was_used_before_must_show_more() -> None:
    once, often = (claim(judge(replace(candidate(), earlier_uses=uses), SPEC), "f1.lower_bound") for uses in (0, 9))
    assert once.value is not None
    assert often.value is not None
    assert often.value < once.value
    assert "99.5% confidence" in often.message


@pytest.mark.slow
def test_a_model_at_the_limit_passes_in_about_five_percent_of_test_sets() -> None:
    """H0 at its edge: true weighted F1 = 0.92. As a point estimate this passes every second time."""
    runs, passed = 300, 0
    for seed in range(runs):
        truth = np.random.default_rng(seed).integers(0, len(LABELS), 500)
        predicted = answers(truth, 0.92, seed + 10_000)
        answered = Answered.of(truth, [predicted], len(LABELS)).with_customer_lost()
        drawn = answered.resampled(seed, 300).weighted[0]
        passed += bool(np.quantile(drawn, 0.05) > 0.92)
    assert passed <= binom.ppf(0.999, runs, 0.06)


# The champion


def test_the_first_model_passes_the_comparison_by_a_recorded_waiver() -> None:
    decision = judge(replace(candidate(), champion=FirstModel()), SPEC)
    assert decision.verdict is Verdict.PASS
    assert claim(decision, "champion").message == "waived: first model, the registry holds no production version"


def test_a_champion_that_cannot_be_asked_is_an_error() -> None:
    decision = judge(replace(candidate(), champion=ChampionUnavailable("model.onnx is damaged")), SPEC)
    assert decision.verdict is Verdict.ERROR
    assert "model.onnx is damaged" in decision.summary


def test_a_challenger_that_loses_on_one_label_only_fails_that_claim() -> None:
    inputs = candidate(accuracy=0.97)
    worse = np.where((inputs.truth == 2) & (np.arange(2_000) % 3 == 0), 3, inputs.predicted)
    decision = judge(replace(inputs, predicted=worse), SPEC)
    assert claim(decision, "champion.label.greeting").verdict is Verdict.FAIL
    assert claim(decision, "champion.label.complaint").verdict is Verdict.PASS


def test_after_a_shift_the_better_challenger_is_not_held_back_by_few_new_rows() -> None:
    inputs = candidate(rows=2_000, accuracy=0.96)
    newest = np.arange(2_000) >= 1_920
    stale = np.where(newest & (np.random.default_rng(3).random(2_000) > 0.45), (inputs.truth + 1) % 4, inputs.predicted)
    decision = judge(replace(inputs, champion=Champion("1", stale), newest=newest), SPEC)
    assert decision.verdict is Verdict.PASS, decision.summary


def test_a_challenger_that_forgot_the_newest_window_is_held() -> None:
    inputs = candidate()
    assert inputs.newest is not None
    forgot = np.where(inputs.newest & (np.arange(2_000) % 4 == 0), (inputs.truth + 1) % 4, inputs.predicted)
    assert claim(judge(replace(inputs, predicted=forgot), SPEC), "champion.newest").verdict is Verdict.FAIL


def test_a_handful_of_rows_without_a_loss_proves_nothing() -> None:
    inputs = candidate()
    newest = claim(judge(replace(inputs, newest=np.arange(2_000) < 20), SPEC), "champion.newest")
    assert newest.verdict is Verdict.INSUFFICIENT_DATA
    assert newest.rows_needed == pytest.approx(99, abs=5)  # 0.97^99 < 5 %


def test_a_label_without_test_rows_cannot_be_judged() -> None:
    inputs = candidate()
    without = np.where(inputs.truth == 1, 0, inputs.truth)
    decision = judge(replace(inputs, truth=without), SPEC)
    assert claim(decision, "champion.label.farewell").verdict is Verdict.INSUFFICIENT_DATA


@pytest.mark.slow
def test_a_loss_of_exactly_the_margin_is_let_through_in_about_five_percent_of_test_sets() -> None:
    runs, passed, margin = 200, 0, 0.03
    for seed in range(runs):
        truth = np.random.default_rng(seed).integers(0, len(LABELS), 600)
        pair = [answers(truth, 0.93, seed + 10_000), answers(truth, 0.96, seed + 20_000)]
        drawn = Answered.of(truth, pair, len(LABELS)).with_customer_lost().resampled(seed, 300).weighted
        passed += bool(np.quantile(drawn[0] - drawn[1], 0.05) > -margin)
    assert passed <= binom.ppf(0.999, runs, 0.06)


# Latency, leakage, calibration


def test_latency_is_judged_by_its_upper_bound() -> None:
    slow = np.full(1_000, 10.0)
    slow[:9] = 80.0  # 0.9 % of queries: fine as a point estimate, not proven
    latency = claim(judge(replace(candidate(), latencies_ms=slow), SPEC), "latency.percentile")
    assert latency.verdict is Verdict.INSUFFICIENT_DATA
    assert latency.rows_needed is not None
    assert latency.rows_needed > 1_000
    slow[:20] = 80.0
    assert claim(judge(replace(candidate(), latencies_ms=slow), SPEC), "latency.percentile").verdict is Verdict.FAIL


def test_a_model_that_is_slow_each_time_fails_by_few_queries() -> None:
    latency = claim(judge(replace(candidate(), latencies_ms=np.full(7, 500.0)), SPEC), "latency.percentile")
    assert latency.verdict is Verdict.FAIL
    assert "7 of 7" in latency.message


def test_few_latencies_say_how_many_are_needed() -> None:
    latency = claim(judge(replace(candidate(), latencies_ms=np.full(100, 5.0)), SPEC), "latency.percentile")
    assert (latency.verdict, latency.rows_needed) == (Verdict.INSUFFICIENT_DATA, 299)


def test_one_leaking_row_fails() -> None:
    leaking = replace(CLEAN, rows={**CLEAN.rows, "near": 1})
    decision = judge(replace(candidate(), leakage=leaking), SPEC)
    assert decision.verdict is Verdict.FAIL
    assert "1 test rows nearly repeat a training text" in decision.summary


def test_a_boasting_model_fails_calibration() -> None:
    inputs = candidate(accuracy=0.8)
    boast = np.eye(len(LABELS))[inputs.predicted]
    assert claim(judge(replace(inputs, probabilities=boast), SPEC), "calibration.error").verdict is Verdict.FAIL


@pytest.mark.parametrize(
    "missing",
    [
        {"champion": None},
        {"newest": None},
        {"probabilities": None},
        {"latencies_ms": None},
        {"leakage": None},
        {"latencies_ms": np.array([1.0, np.nan])},
    ],
)
def test_a_missing_figure_fails_closed(missing: dict[str, object]) -> None:
    decision = judge(replace(candidate(), **missing), SPEC)
    assert decision.verdict is Verdict.ERROR
    assert not decision.released


def test_an_empty_test_set_is_insufficient() -> None:
    nothing = np.array([], int)
    inputs = GateInputs(LABELS, nothing, nothing, Champion("1", nothing), nothing.astype(bool), np.empty((0, 4)))
    decision = judge(replace(inputs, latencies_ms=np.full(400, 1.0), leakage=CLEAN), SPEC)
    assert decision.verdict is Verdict.INSUFFICIENT_DATA


@pytest.mark.parametrize("name", ["predicted", "newest", "probabilities", "customers"])
def test_arrays_of_other_rows_are_refused_by_name(name: str) -> None:
    inputs = replace(candidate(), customers=np.arange(2_000))
    with pytest.raises(MismatchedInputs, match=name):
        replace(inputs, **{name: getattr(inputs, name)[:-1]})


def test_an_unknown_label_number_is_refused() -> None:
    with pytest.raises(MismatchedInputs, match="predicted"):
        replace(candidate(), predicted=np.full(2_000, 4))


# The decision


def test_a_waiver_releases_without_changing_the_verdict() -> None:
    decision = judge(replace(candidate(accuracy=0.5), waiver=Waiver("drill: watch it roll back", "ops")), SPEC)
    assert decision.verdict is Verdict.FAIL
    assert decision.released
    assert "waived by ops" in decision.summary


def test_the_evidence_is_plain_json() -> None:
    document = json.loads(to_json(judge(candidate(), SPEC).to_dict()))
    assert document["verdict"] == "pass"
    assert document["claims"][0]["limit"] == 0.92


def test_the_same_inputs_give_the_same_decision() -> None:
    assert judge(candidate(), SPEC) == judge(candidate(), SPEC)


@pytest.mark.slow
@settings(max_examples=40)
@given(st.integers(1, 400), st.floats(0, 1), st.integers(0, 5))
def test_any_arrays_end_in_a_stated_verdict(rows: int, accuracy: float, seed: int) -> None:
    decision = judge(candidate(rows, accuracy, seed), SPEC)
    assert decision.verdict in Verdict
    f1 = claim(decision, "f1.lower_bound")
    if f1.verdict is Verdict.PASS:
        inputs = candidate(rows, accuracy, seed)
        estimate = Answered.of(inputs.truth, [inputs.predicted], 4).f1().weighted[0]
        assert 0.92 < f1.value <= estimate
