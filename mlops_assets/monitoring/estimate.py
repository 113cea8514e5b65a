"""Performance without labels: what a window's confidences say its accuracy and weighted F1 will turn out to be.

A calibrated model's probabilities are its own expected confusion matrix; what held-out rows showed of its
calibration corrects and widens the answer. It cannot see a change of what the same message means (concept
shift): there the confidences stay as they were and the estimate is wrong, which only labels can show, as
the error of the estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlops_assets.f1 import weighted_f1
from mlops_assets.monitoring.quality import Quality

CONFIDENCE = 0.95
_BINS = 10
_DRAWS = 1000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """How confidence and correctness of held-out rows went together, in bins of about equally many rows.

    Attributes:
        edges: (b - 1,) confidences at which a next bin begins.
        rows: (b,) held-out rows.
        right: (b,) those answered rightly.
        confidence: (b,) their mean confidence.
    """

    edges: Floats
    rows: Floats
    right: Floats
    confidence: Floats

    def to_dict(self) -> dict[str, list[float]]:
        return {name: getattr(self, name).tolist() for name in ("edges", "rows", "right", "confidence")}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Calibration:
        return cls(*(np.array(document[name], float) for name in ("edges", "rows", "right", "confidence")))


@dataclass(frozen=True)
class Estimate:
    """What is expected of a window of `rows` predictions.

    Each pair of bounds encloses the figure that labels of all its rows would give, with 95 % confidence,
    as long as probabilities mean what they meant on the held-out rows.
    """

    rows: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    f1_weighted: float
    f1_low: float
    f1_high: float


@dataclass(frozen=True)
class EstimateError:
    """Estimated less realised figures of the same rows; `covered`: the realised F1 lay within the interval."""

    rows: int
    accuracy: float
    f1_weighted: float
    covered: bool


def measure_calibration(probabilities: NDArray[np.floating[Any]], truth: NDArray[np.int64]) -> Calibration:
    """Compare confidence and correctness of held-out rows.

    Args:
        probabilities: (n, labels), n >= 1.
        truth: (n,) columns of the true labels.

    Raises:
        ValueError: no rows, or a probability that is no finite number.
    """
    table = _checked(probabilities)
    top = table.max(axis=1)
    right = table.argmax(axis=1) == truth
    inner = np.quantile(top, np.arange(1, _BINS) / _BINS, method="higher")
    edges = np.unique(inner[inner > top.min()])
    bins = np.searchsorted(edges, top, side="right")
    rows, rights, tops = (_summed(bins, weights, len(edges) + 1) for weights in (np.ones(len(top)), right, top))
    return Calibration(np.asarray(edges, float), rows, rights, tops / rows)


def estimate(probabilities: NDArray[np.floating[Any]], calibration: Calibration, *, seed: int = 0) -> Estimate:
    """Expected accuracy and weighted F1 of a window, from its confidences.

    Method: confidence-based estimation (Guillory et al., "Predicting with Confidence on Unseen Distributions",
    2021; as CBPE in NannyML): with calibrated probabilities the expected confusion matrix is their sum by
    predicted label. The top probability is moved by the gap between accuracy and confidence that the held-out
    rows of its bin show, the others in proportion. The interval holds two kinds of doubt: the gap of each bin
    is drawn from its Beta posterior (Jeffreys' prior), and the true labels from a multinomial per predicted
    label, whose variance is at least that of the rows' own draws.

    Null and error rate: where each row's true label follows its calibrated probabilities, the realised figure
    lies outside the interval at most 5 % of the time (simulated in the tests). Under a concept shift
    no rate holds.

    Args:
        probabilities: (n, labels), n >= 1; all of one version, so that the columns mean the same.
        calibration: of that version.
        seed: of the draws.

    Raises:
        ValueError: no rows, or a probability that is no finite number.

    >>> sure = np.array([[0.9, 0.1]] * 50 + [[0.2, 0.8]] * 50)
    >>> held_out = measure_calibration(np.repeat(sure, 20, axis=0), np.repeat(np.arange(2), 1000))
    >>> estimate(sure, held_out).accuracy > 0.99  # it said 85 % on average, and was always right
    True
    """
    table = _checked(probabilities)
    cells = _Cells.of(table, calibration)
    wrong = calibration.rows - calibration.right
    posterior = calibration.right + 0.5, wrong + 0.5
    rng = np.random.default_rng(seed)
    gaps = rng.beta(*posterior, size=(_DRAWS, len(calibration.rows))) - calibration.confidence
    mean_gap = posterior[0] / (calibration.rows + 1.0) - calibration.confidence
    expected = cells.confusion(mean_gap[None])
    drawn = _drawn(rng, cells.confusion(gaps))
    low, high = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    accuracy_low, accuracy_high = np.quantile(_accuracy(drawn), [low, high])
    f1_low, f1_high = np.quantile(_f1(drawn), [low, high])
    return Estimate(
        rows=len(table),
        accuracy=float(_accuracy(expected)[0]),
        accuracy_low=float(accuracy_low),
        accuracy_high=float(accuracy_high),
        f1_weighted=float(_f1(expected)[0]),
        f1_low=float(f1_low),
        f1_high=float(f1_high),
    )


def estimate_error(estimated: Estimate, realised: Quality) -> EstimateError:
    """How far an estimate was off, once labels of all its rows are known.

    Raises:
        ValueError: the two are not of the same rows.
    """
    if realised.accuracy is None or realised.f1_weighted is None or realised.labels != estimated.rows:
        raise ValueError(f"an estimate of {estimated.rows} rows against {realised.labels} labels: pass the same rows")
    return EstimateError(
        rows=estimated.rows,
        accuracy=estimated.accuracy - realised.accuracy,
        f1_weighted=estimated.f1_weighted - realised.f1_weighted,
        covered=estimated.f1_low <= realised.f1_weighted <= estimated.f1_high,
    )


@dataclass(frozen=True)
class _Cells:
    """A window summed by predicted label and confidence bin, so that a draw costs the same for any number of rows.

    `rows` (c, b), `top` (c, b) the sum of top probabilities, `others` (c, b, c) that of all the others.
    """

    rows: Floats
    top: Floats
    others: Floats

    @classmethod
    def of(cls, table: Floats, calibration: Calibration) -> _Cells:
        labels, bins = table.shape[1], len(calibration.rows)
        predicted, top = table.argmax(axis=1), table.max(axis=1)
        cell = predicted * bins + np.searchsorted(calibration.edges, top, side="right")
        others = table.copy()
        others[np.arange(len(table)), predicted] = 0.0
        summed = np.zeros((labels * bins, labels))
        np.add.at(summed, cell, others)
        rows, tops = (_summed(cell, weights, labels * bins) for weights in (np.ones(len(top)), top))
        return cls(rows.reshape(labels, bins), tops.reshape(labels, bins), summed.reshape(labels, bins, -1))

    def confusion(self, gaps: Floats) -> Floats:
        """Expected rows (k, c, c) by predicted (down) and true label (across), for k sets of gaps (k, b)."""
        labels = len(self.rows)
        elsewhere = (1 - np.eye(labels))[:, None, :] / (labels - 1)
        rest = self.others.sum(axis=2, keepdims=True)
        spread = np.divide(self.others, rest, out=np.broadcast_to(elsewhere, self.others.shape).copy(), where=rest > 0)
        top = np.clip(self.top + self.rows * gaps[:, None, :], 0.0, self.rows)
        expected = np.einsum("kcb,cbl->kcl", self.rows - top, spread)
        expected[:, np.arange(labels), np.arange(labels)] += top.sum(axis=2)
        return expected


def _drawn(rng: np.random.Generator, expected: Floats) -> Floats:
    """One draw of the true labels for each expected confusion (k, c, c); the rows per predicted label stay."""
    rows = np.rint(expected.sum(axis=2, keepdims=True))
    even = np.full_like(expected, 1 / expected.shape[2])
    shares = np.divide(expected, rows, out=even, where=rows > 0)
    shares /= shares.sum(axis=2, keepdims=True)
    return rng.multinomial(rows[..., 0].astype(np.int64), shares).astype(float)


def _accuracy(confusion: Floats) -> Floats:
    accuracy: Floats = np.trace(confusion, axis1=1, axis2=2) / confusion.sum(axis=(1, 2))
    return accuracy


def _f1(by_predicted: Any) -> Floats:
    return weighted_f1(by_predicted.transpose(0, 2, 1))


def _summed(places: NDArray[np.int64], weights: Any, size: int) -> Floats:
    return np.bincount(places, weights=weights, minlength=size).astype(float)


def _checked(probabilities: NDArray[np.floating[Any]]) -> Floats:
    table = np.asarray(probabilities, float)
    if table.ndim != 2 or not len(table) or table.shape[1] < 2:
        raise ValueError(f"probabilities of shape {table.shape}: at least one row and two labels are needed")
    if not np.isfinite(table).all():
        raise ValueError("probabilities hold NaN or infinity: such an answer was no prediction, leave its row out")
    return table
