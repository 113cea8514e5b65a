"""How good a model's answers are on rows with known labels, and how fast it gives them.

Knows probabilities, true labels and a predictor; whether that is good enough is the gate's to say.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from mlops_assets.f1 import Answered, f1_bounds
from mlops_assets.training.artefact import Predictor

_CONFIDENCE = 0.975  # of either side: 95 % for the interval
_WARM_UP = 20
_QUERIES = 600
# Where more than this share is slow, no percentile from the 90th on can be proved: measuring on would only take time.
_HOPELESS_SHARE = 0.1
_HOPELESS_ALPHA = 1e-6  # of each look; 6e-4 for all of them, by the union bound
_ASK_AGAIN = 2
_DOUBTS = 5  # so many slow calls are put down to the machine; what is slow more often is the model
_LEAST_PROBABILITY = 1e-12
_SCHEDULING = Path("/proc/thread-self/schedstat")  # ns on a processor, ns waiting for one, turns


class EvaluationError(ValueError):
    """There is nothing to evaluate, or answers and labels do not belong together."""


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on n rows.

    `f1_weighted_low` and `f1_weighted_high` enclose the weighted F1 with 95 % confidence (`mlops_assets.f1`).
    `loss` is cross-entropy in nats. `confusion` (labels, labels) counts rows by true label (down) and answer (across).
    """

    rows: int
    labels: tuple[str, ...]
    accuracy: float
    f1_weighted: float
    f1_weighted_low: float
    f1_weighted_high: float
    f1_macro: float
    f1_per_label: dict[str, float]
    loss: float
    confusion: NDArray[np.int64]

    def metrics(self) -> dict[str, float]:
        """The figures by flat names; per-label F1 as ``f1_<label>``, where that is not the name of another figure."""
        return {f"f1_{label}": value for label, value in self.f1_per_label.items()} | {
            "accuracy": self.accuracy,
            "f1_weighted": self.f1_weighted,
            "f1_weighted_low": self.f1_weighted_low,
            "f1_weighted_high": self.f1_weighted_high,
            "f1_macro": self.f1_macro,
            "loss": self.loss,
        }


def evaluate(
    truth: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    labels: Sequence[str],
    *,
    customers: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Compare answers with the truth.

    Args:
        truth: (n,) positions in `labels`.
        probabilities: (n, labels), columns in the order of `labels`.
        labels: all declared labels; one that occurs in neither truth nor answers has F1 0 and no part in the macro F1.
        customers: whose row each is, any numbers, (n,); None: rows are independent.
        seed: of the bootstrap.

    Raises:
        EvaluationError: no rows, or the shapes do not belong together.

    >>> sure = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    >>> result = evaluate(np.array([0, 0, 1, 1]), sure, ["yes", "no"])
    >>> result.accuracy, round(result.f1_weighted, 3), result.confusion.tolist()
    (0.75, 0.733, [[2, 0], [1, 1]])
    """
    if len(truth) == 0 or np.shape(probabilities) != (len(truth), len(labels)):
        raise EvaluationError(
            f"{len(truth)} true labels and answers of shape {np.shape(probabilities)} for {len(labels)} labels "
            "do not belong together; both need the same rows, at least one"
        )
    answers = probabilities.argmax(axis=1)
    confusion = _confusion(truth, answers, len(labels))
    rows = Answered.of(truth, [answers], len(labels), customers)
    f1 = rows.f1()
    per_label = f1.per_label[0]
    seen = (confusion.sum(axis=0) + confusion.sum(axis=1)) > 0
    low, high = f1_bounds(rows, _CONFIDENCE, seed)
    given = probabilities[np.arange(len(truth)), truth]
    return Evaluation(
        rows=len(truth),
        labels=tuple(labels),
        accuracy=float(np.trace(confusion) / len(truth)),
        f1_weighted=float(f1.weighted[0]),
        f1_weighted_low=low,
        f1_weighted_high=high,
        f1_macro=float(per_label[seen].mean()),
        f1_per_label=dict(zip(labels, per_label.tolist(), strict=True)),
        loss=float(-np.log(np.maximum(given, _LEAST_PROBABILITY)).mean()),
        confusion=confusion,
    )


def measure_latencies(
    predictor: Predictor, texts: Sequence[str], features: NDArray[np.float32], limit_ms: float, queries: int = _QUERIES
) -> NDArray[np.float64]:
    """Wall-clock latency in ms of single-message calls, one after the other, after a warm-up.

    What other work on the machine adds is not the model's: time that the call spent waiting for a processor is left
    out where the kernel tells it (Linux), and of the first five calls over the limit each is asked again, twice at
    most, and its fastest answer counts: a stall of the machine is forgiven, a model that is slow now and then is not.
    So up to five calls in 600 may be forgiven to a model, too.

    Args:
        predictor: as serving loads it.
        texts: real messages; taken in turn, from the start again when there are fewer than `queries`.
        features: (len(texts), f).
        limit_ms: once it is beyond doubt that more than a tenth takes longer, the rest is not measured. H0 of each
            look: at most a tenth does; exact binomial test, error at most 6e-4 over 600 queries.
        queries: how many.

    Raises:
        EvaluationError: no texts.
    """
    if not texts:
        raise EvaluationError("latency needs at least one message to measure on")
    latencies: list[float] = []
    slow = doubted = 0
    for query in range(-_WARM_UP, queries):
        row = query % len(texts)
        elapsed = _ask(predictor, texts[row], features[row : row + 1])
        if query < 0:
            continue
        if elapsed > limit_ms and doubted < _DOUBTS:
            doubted += 1
            again = (_ask(predictor, texts[row], features[row : row + 1]) for _ in range(_ASK_AGAIN))
            elapsed = min(elapsed, *again)
        latencies.append(elapsed)
        slow += elapsed > limit_ms
        if binom.sf(slow - 1, len(latencies), _HOPELESS_SHARE) < _HOPELESS_ALPHA:
            break
    return np.array(latencies)


def _ask(predictor: Predictor, text: str, features: NDArray[np.float32]) -> float:
    """Wall-clock ms of one call, less what it waited for a processor."""
    started, before = time.perf_counter(), _waited_ms()
    predictor.predict([text], features)
    waited = _waited_ms() - before  # read within the time that is taken, so that no wait is counted outside of it
    return 1000 * (time.perf_counter() - started) - waited


def _waited_ms() -> float:
    """How long this thread was ready to run and had no processor, since it began; 0 where the kernel does not say."""
    try:
        return int(_SCHEDULING.read_text().split()[1]) / 1e6
    except FileNotFoundError:
        return 0.0


def _confusion(truth: NDArray[np.int64], predicted: NDArray[np.int64], n_labels: int) -> NDArray[np.int64]:
    counts = np.bincount(truth * n_labels + predicted, minlength=n_labels * n_labels)
    return counts.reshape(n_labels, n_labels).astype(np.int64)
