"""The figures are drawn for the shortest and the longest training alike."""

from __future__ import annotations

import numpy as np
import pytest

from mlops_assets.training.figures import confusion_matrix, learning_curve, png
from mlops_assets.training.fit import EpochMetrics

PNG = b"\x89PNG"


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 30])
def test_a_learning_curve(epochs: int) -> None:
    history = [EpochMetrics(e, 1 / e, 1.2 / e, 0.9, 1 - 0.3 / e, 0.5) for e in range(1, epochs + 1)]
    figure = learning_curve(history, "lr0.001-bs64-ep30-do0.1")
    assert png(figure).startswith(PNG)
    assert [axes.get_xlabel() for axes in figure.axes] == ["epoch", "epoch"]


def test_a_confusion_matrix_writes_every_count_that_is_not_zero() -> None:
    figure = confusion_matrix(np.array([[1200, 3], [0, 0]]), ["refund", "order_status"], "test rows")
    assert {text.get_text() for text in figure.axes[0].texts} == {"1,200", "3"}
    assert png(figure).startswith(PNG)
