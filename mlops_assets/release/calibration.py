"""Whether a model's confidence means what it says: the expected calibration error.

It reads probabilities and true labels; fitting a temperature is left to training, judging to the gate.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def expected_calibration_error(probabilities: Any, truth: Any, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over bins of equally many rows, 0..1.

    Method: adaptive ECE (Nixon et al., "Measuring Calibration in Deep Learning", 2019). Sampling noise makes it
    larger, never smaller, on average: on few rows it errs on the strict side.

    Parameters
    ----------
    probabilities : shape (n, labels), n >= 1.
    truth : shape (n,), label numbers.

    Examples
    --------
    >>> expected_calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]), bins=1)
    0.0
    """
    table = np.asarray(probabilities, float)
    confidence = table.max(axis=1)
    right = table.argmax(axis=1) == np.asarray(truth)
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if part.size]
    return float(sum(part.size * abs(confidence[part].mean() - right[part].mean()) for part in parts) / order.size)
