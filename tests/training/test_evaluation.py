"""The figures are the field's; the interval covers the truth as often as it says."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from mlops_assets.training.artefact import Predictor
from mlops_assets.training.evaluation import EvaluationError, evaluate, measure_latencies

LABELS = ("a", "b", "c")
SCHEDULING = Path("/proc/thread-self/schedstat")


@pytest.mark.slow
@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_every_figure_equals_scikit_learns(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    truth, probabilities = rng.integers(0, 3, n), rng.dirichlet(np.ones(3), n)
    predicted = probabilities.argmax(axis=1)
    result = evaluate(truth, probabilities, LABELS)
    assert result.accuracy == pytest.approx(accuracy_score(truth, predicted))
    assert result.f1_weighted == pytest.approx(f1_score(truth, predicted, average="weighted", zero_division=0))
    assert result.f1_macro == pytest.approx(f1_score(truth, predicted, average="macro", zero_division=0))
    per_label = f1_score(truth, predicted, average=None, labels=[0, 1, 2], zero_division=0)
    assert list(result.f1_per_label.values()) == pytest.approx(per_label.tolist())
    assert result.loss == pytest.approx(log_loss(truth, probabilities, labels=[0, 1, 2]))
    assert (result.confusion == confusion_matrix(truth, predicted, labels=[0, 1, 2])).all()
    assert result.f1_weighted_low <= result.f1_weighted_high


def test_metrics_are_flat_and_name_the_labels() -> None:
    metrics = evaluate(np.array([0, 1]), np.eye(3)[[0, 1]], LABELS).metrics()
    assert metrics["f1_a"] == 1.0
    assert metrics["f1_c"] == 0.0
    assert set(metrics) >= {"accuracy", "f1_weighted", "f1_macro", "loss"}


def test_a_label_that_is_called_as_a_figure_does_not_stand_for_it() -> None:
    result = evaluate(np.array([0, 0, 0, 1]), np.eye(2)[[0, 0, 1, 1]], ("weighted", "macro"))
    assert result.metrics()["f1_weighted"] == result.f1_weighted != result.f1_per_label["weighted"]
    assert result.metrics()["f1_macro"] == result.f1_macro != result.f1_per_label["macro"]


@pytest.mark.slow
def test_the_interval_covers_the_true_f1_in_95_of_100_samples() -> None:
    """H0: it misses in 5 % of samples. More misses than the 99.8th percentile are no chance."""
    rng = np.random.default_rng(11)
    population_truth = rng.choice(3, 200_000, p=[0.5, 0.3, 0.2])
    wrong = rng.random(200_000) < 0.1
    population_answer = np.where(wrong, rng.integers(0, 3, 200_000), population_truth)
    true_f1 = f1_score(population_truth, population_answer, average="weighted")
    misses = 0
    for seed in range(100):
        rows = rng.integers(0, 200_000, 500)
        result = evaluate(population_truth[rows], np.eye(3)[population_answer[rows]], LABELS, seed=seed)
        misses += not result.f1_weighted_low <= true_f1 <= result.f1_weighted_high
    assert misses <= binom.ppf(0.998, 100, 0.05)


@pytest.mark.parametrize("shape", [(0, 3), (2, 3), (1, 2)])
def test_answers_of_other_rows_or_labels_are_refused(shape: tuple[int, int]) -> None:
    truth = np.zeros(0 if shape[0] == 0 else 1, dtype=np.int64)
    with pytest.raises(EvaluationError, match="do not belong together"):
        evaluate(truth, np.ones(shape), LABELS)


@pytest.mark.slow
def test_latencies_are_of_single_messages_in_ms(exported: Path) -> None:
    predictor = Predictor.load(exported, expected_digest=None)
    latencies = measure_latencies(predictor, ["hello", "bye"], np.zeros((2, 2), np.float32), limit_ms=1000, queries=50)
    assert len(latencies) == 50
    assert 0 < np.median(latencies) < 100


def test_a_hopelessly_slow_predictor_is_not_measured_to_the_end(exported: Path) -> None:
    predictor = Predictor.load(exported, expected_digest=None)
    latencies = measure_latencies(predictor, ["hello"], np.zeros((1, 2), np.float32), limit_ms=0.0, queries=100)
    assert len(latencies) == 7  # a chance of one in ten million, if a tenth was slow


class NowAndThen:
    """Takes 5 ms for one call in `every`."""

    def __init__(self, every: int) -> None:
        self.calls, self._every = 0, every

    def predict(self, *_: object) -> None:
        self.calls += 1
        if self.calls % self._every == 0:
            time.sleep(0.005)


def test_a_stall_of_the_machine_is_forgiven_and_a_model_that_is_slow_now_and_then_is_not() -> None:
    """A call asked again at once is quick here, as after a stall; twenty such calls of 400 are the model's."""
    for every, slow in ((200, 0), (20, 15)):
        predictor = cast(Predictor, NowAndThen(every))
        latencies = measure_latencies(predictor, ["hello"], np.zeros((1, 2), np.float32), limit_ms=4, queries=400)
        assert slow <= (latencies > 4).sum() <= slow + 6  # this machine may stall by itself


def told_to_wait() -> float:
    """Seconds that this thread has waited for a processor so far, as the kernel tells it."""
    return int(SCHEDULING.read_text().split()[1]) / 1e9


@pytest.mark.slow
@pytest.mark.skipif(not SCHEDULING.exists(), reason="this kernel does not tell waiting times")
def test_what_other_work_takes_of_the_processor_is_not_the_models(exported: Path) -> None:
    predictor = Predictor.load(exported, expected_digest=None)
    everywhere = os.sched_getaffinity(0)
    alone = {min(everywhere)}
    rival = subprocess.Popen(
        [sys.executable, "-c", "while True: pass"], preexec_fn=lambda: os.sched_setaffinity(0, alone)
    )
    try:
        os.sched_setaffinity(0, alone)
        began, waited = time.perf_counter(), told_to_wait()
        latencies = measure_latencies(predictor, ["hello"], np.zeros((1, 2), np.float32), limit_ms=1000, queries=3000)
        wall, waited = time.perf_counter() - began, told_to_wait() - waited
    finally:
        rival.kill()
        rival.wait()
        os.sched_setaffinity(0, everywhere)
    assert waited > 0.1 * wall  # the rival was there
    assert latencies.sum() / 1000 < wall - 0.8 * waited
