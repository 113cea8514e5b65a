"""Weighted and per-label F1 with bootstrap distributions, for one model or several on the same rows.

Rows that share their true label and all predictions are exchangeable, so resampling rows equals drawing
the counts of these few cells from a multinomial: thousands of resamples in milliseconds. It computes
distributions; what is good enough is the gate's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class F1:
    """F1 of k models.

    Parameters
    ----------
    weighted : shape (k,) of the rows themselves, or (k, resamples).
    per_label : shape (k, labels) or (k, resamples, labels); a label that never occurs counts 0.
    """

    weighted: Floats
    per_label: Floats


def f1_scores(truth: Labels, predictions: Sequence[Labels], labels: int) -> F1:
    """F1 as scikit-learn's ``f1_score(average="weighted", zero_division=0)``, for each of `predictions`.

    Parameters
    ----------
    truth, predictions : label numbers 0..labels-1, all of one length.

    Examples
    --------
    >>> truth = np.array([0, 0, 1, 1])
    >>> f1_scores(truth, [np.array([0, 0, 1, 0])], 2).per_label.round(3)
    array([[0.8  , 0.667]])
    """
    cells, counts = _cells(truth, predictions)
    return _first(_f1(cells, counts[None, :].astype(np.float64), labels))


def bootstrap_f1(truth: Labels, predictions: Sequence[Labels], labels: int, resamples: int, seed: int) -> F1:
    """The same over `resamples` resamples of the rows (Efron's bootstrap), paired: one draw serves all models.

    Returns
    -------
    F1 with a distribution along axis 1 of ``weighted`` and ``per_label``.
    """
    cells, counts = _cells(truth, predictions)
    rng = np.random.default_rng(seed)
    total = int(counts.sum())
    draws = rng.multinomial(total, counts / total, size=resamples).astype(np.float64)
    return _f1(cells, draws, labels)


def _cells(truth: Labels, predictions: Sequence[Labels]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct rows of (truth, predictions...), and how often each occurs."""
    rows = np.stack([truth, *predictions], axis=1)
    cells, counts = np.unique(rows, axis=0, return_counts=True)
    return cells, counts


def _f1(cells: NDArray[np.int64], draws: Floats, labels: int) -> F1:
    one_hot = np.eye(labels)
    truth = one_hot[cells[:, 0]]
    true_count = draws @ truth
    per_label = []
    for column in range(1, cells.shape[1]):
        predicted = one_hot[cells[:, column]]
        hits = draws @ (truth * predicted)
        size = true_count + draws @ predicted
        per_label.append(np.divide(2.0 * hits, size, out=np.zeros_like(hits), where=size > 0))
    stacked = np.stack(per_label)
    weights = true_count / true_count.sum(axis=1, keepdims=True)
    return F1(np.einsum("krl,rl->kr", stacked, weights), stacked)


def _first(f1: F1) -> F1:
    return F1(f1.weighted[:, 0], f1.per_label[:, 0, :])
