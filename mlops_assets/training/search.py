"""Tries the declared configurations one after the other and keeps the best.

Best is the highest weighted F1 on the validation rows, which all trials share; how good the winner really
is must be asked of rows that no trial saw. Logging is the caller's, through the callbacks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

from mlops_assets.spec import TrainingSpec
from mlops_assets.training.encoder import Encoder
from mlops_assets.training.examples import Examples
from mlops_assets.training.fit import EpochMetrics, Fitted, TrialConfig, fit


@dataclass(frozen=True)
class TrialOutcome:
    """What is remembered of a trial that did not win: its configuration and its epochs, not its weights."""

    config: TrialConfig
    best: EpochMetrics
    history: tuple[EpochMetrics, ...]


@dataclass(frozen=True)
class SearchResult:
    """The winning trial with its network, and the outcome of every trial in the order they ran."""

    best: Fitted
    outcomes: tuple[TrialOutcome, ...]


OnTrialEpoch = Callable[[TrialConfig, EpochMetrics], None]
OnTrial = Callable[[Fitted], None]


def configurations(spec: TrainingSpec) -> tuple[TrialConfig, ...]:
    """The cross product of the declared lists, in their order.

    >>> [config.name for config in configurations(TrainingSpec())][:2]
    ['lr0.001-bs128-ep30-do0.1', 'lr0.001-bs128-ep30-do0.3']
    """
    space = spec.search
    return tuple(
        TrialConfig(
            learning_rate=rate,
            batch_size=batch,
            epochs=epochs,
            dropout=dropout,
            hidden_units=spec.hidden_units,
            early_stopping_epochs=spec.early_stopping_epochs,
            label_smoothing=spec.label_smoothing,
            finetune=spec.finetune,
            last_n=spec.last_n,
            seed=spec.seed,
        )
        for rate, batch, epochs, dropout in product(space.learning_rate, space.batch_size, space.epochs, space.dropout)
    )


def search(
    train: Examples,
    validation: Examples,
    configs: Sequence[TrialConfig],
    encoder: Encoder,
    n_labels: int,
    *,
    on_epoch: OnTrialEpoch,
    on_trial: OnTrial,
) -> SearchResult:
    """Fit every configuration on the same rows and keep the best by validation F1, then by validation loss.

    Args:
        train: rows to learn from.
        validation: rows that trials stop on and are compared on.
        configs: at least one, see `configurations`.
        encoder: the pretrained encoder that the rows' embeddings come from.
        n_labels: number of declared labels.
        on_epoch: told each epoch of each trial as it ends.
        on_trial: told each trial as it ends.

    Raises:
        ValueError: `configs` is empty.
        TrainingError: a trial's loss is no longer finite.
    """
    if not configs:
        raise ValueError("a search needs at least one configuration")
    best: Fitted | None = None
    outcomes = []
    for config in configs:
        fitted = fit(train, validation, config, encoder, n_labels, partial(on_epoch, config))
        on_trial(fitted)
        outcomes.append(TrialOutcome(config, fitted.best, fitted.history))
        best = fitted if best is None else max(best, fitted, key=_merit)
    assert best is not None  # configs is not empty
    return SearchResult(best, tuple(outcomes))


def _merit(fitted: Fitted) -> tuple[float, float]:
    return fitted.best.f1_weighted, -fitted.best.validation_loss
