"""The pictures of a training: how the trials learned, and what the winner mistakes for what.

Draws on figures of its own, never through pyplot's global state, so that it is safe in any thread and needs
no display. Where pictures are shown is left to the caller.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mlops_assets.training.fit import EpochMetrics

_INK, _GRID = "#343a40", "#dee2e6"
_TRAIN, _VALIDATION = "#868e96", "#1c7ed6"


def learning_curve(history: Sequence[EpochMetrics], title: str) -> Figure:
    """Loss and validation F1 by epoch, side by side; the best epoch is marked."""
    figure = Figure(figsize=(9.0, 3.4), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=11, color=_INK, x=0.01, ha="left")
    losses, scores = figure.subplots(1, 2)
    epochs = [metrics.epoch for metrics in history]
    losses.plot(epochs, [m.train_loss for m in history], color=_TRAIN, label="training (weighted)")
    losses.plot(epochs, [m.validation_loss for m in history], color=_VALIDATION, label="validation")
    losses.legend(frameon=False, fontsize=9)
    _style(losses, "loss (nats)")
    scores.plot(epochs, [m.f1_weighted for m in history], color=_VALIDATION, marker="o", markersize=3)
    best = max(history, key=lambda metrics: metrics.f1_weighted)
    scores.axvline(best.epoch, color=_INK, linewidth=0.8, linestyle=":")
    scores.annotate(
        f"{best.f1_weighted:.4f} in epoch {best.epoch}",
        (best.epoch, min(m.f1_weighted for m in history)),
        xytext=(4 if best.epoch <= np.mean(epochs) else -4, 2),
        textcoords="offset points",
        ha="left" if best.epoch <= np.mean(epochs) else "right",
        fontsize=9,
        color=_INK,
    )
    _style(scores, "weighted F1, validation")
    return figure


def confusion_matrix(confusion: NDArray[np.int64], labels: Sequence[str], title: str) -> Figure:
    """Counts by true label (down) and answer (across); the shade is the share of the true label's rows."""
    side = 1.8 + 0.62 * len(labels)
    figure = Figure(figsize=(side + 0.8, side), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=11, color=_INK, x=0.01, ha="left")
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            colour = "white" if shares[row, column] > 0.55 else _INK
            axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=8.5, color=colour)
    positions = range(len(labels))
    axes.set_xticks(positions, labels, rotation=40, ha="right", fontsize=9)
    axes.set_yticks(positions, labels, fontsize=9)
    axes.set_xlabel("answer", color=_INK)
    axes.set_ylabel("true label", color=_INK)
    axes.tick_params(length=0, colors=_INK)
    axes.spines[:].set_visible(False)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _style(axes: Axes, label: str) -> None:
    axes.set_xlabel("epoch", fontsize=9, color=_INK)
    axes.set_ylabel(label, fontsize=9, color=_INK)
    axes.tick_params(labelsize=8, colors=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=_GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
