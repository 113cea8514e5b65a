"""One trial: fits one configuration, epoch by epoch, and keeps the weights of its best epoch.

Knows the loss, the optimiser and early stopping on the validation rows' weighted F1. Given the same rows
and configuration it gives the same weights. Which configurations are tried is `mlops_assets.training.search`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlops_assets.f1 import Answered
from mlops_assets.training.encoder import Encoder, Finetune, best_device, trainable_layers
from mlops_assets.training.examples import Examples, class_weights
from mlops_assets.training.network import Head, SentenceEncoder, copy_state
from mlops_assets.training.threads import one_thread_per_operation
from mlops_assets.training.tokens import Tokens, tokenize

_WEIGHT_DECAY = 0.01
# Pretrained layers are moved gently: 2e-5 where the head learns at 1e-3 (Devlin et al., "BERT", 2019, appendix A.3).
_ENCODER_RATE = 0.02
_PREDICT_BATCH = 256


class TrainingError(RuntimeError):
    """A trial cannot go on; the message names the configuration and what to change."""


@dataclass(frozen=True)
class TrialConfig:
    """Everything that decides the outcome of one trial, besides the rows."""

    learning_rate: float = 1e-3
    batch_size: int = 128
    epochs: int = 30
    dropout: float = 0.1
    hidden_units: int = 128
    early_stopping_epochs: int = 4
    label_smoothing: float = 0.05
    finetune: Finetune = "head"
    last_n: int = 2
    seed: int = 0

    @property
    def name(self) -> str:
        """Short, and unique within a search.

        >>> TrialConfig(learning_rate=0.003, dropout=0.3).name
        'lr0.003-bs128-ep30-do0.3'
        """
        return f"lr{self.learning_rate:g}-bs{self.batch_size}-ep{self.epochs}-do{self.dropout:g}"


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch came to. Losses in nats: training as minimised (weighted), validation plain cross-entropy."""

    epoch: int
    train_loss: float
    validation_loss: float
    accuracy: float
    f1_weighted: float
    seconds: float


@dataclass(frozen=True)
class Fitted:
    """A finished trial: the network of its best epoch, on the CPU.

    `encoder` is None where the pretrained one was left as it is. `validation_logits` (n, labels) float32 are
    the best epoch's, in the order of the validation rows.
    """

    config: TrialConfig
    head: Head
    encoder: SentenceEncoder | None
    history: tuple[EpochMetrics, ...]
    best: EpochMetrics
    validation_logits: NDArray[np.float32]


OnEpoch = Callable[[EpochMetrics], None]


def fit(
    train: Examples,
    validation: Examples,
    config: TrialConfig,
    encoder: Encoder,
    n_labels: int,
    on_epoch: OnEpoch,
) -> Fitted:
    """Train one configuration; stop when validation F1 has not risen for `early_stopping_epochs`.

    Args:
        train: rows to learn from; their weights scale the loss, times the weight of their class.
        validation: rows to stop on; the same for every trial that is compared.
        config: the configuration.
        encoder: the pretrained encoder that the rows' embeddings come from.
        n_labels: number of declared labels.
        on_epoch: told each epoch as it ends.

    Raises:
        TrainingError: the loss is no longer finite.
    """
    with _seeded(config):
        inputs = _inputs(train, validation, config, encoder)
        trial = _Trial(train, validation, config, inputs, n_labels)
        history: list[EpochMetrics] = []
        best: tuple[EpochMetrics, NDArray[np.float32]] | None = None
        for epoch in range(1, config.epochs + 1):
            metrics, logits = trial.run_epoch(epoch)
            history.append(metrics)
            on_epoch(metrics)
            if best is None or metrics.f1_weighted > best[0].f1_weighted:
                best = (metrics, logits)
                trial.keep()
            elif epoch - best[0].epoch >= config.early_stopping_epochs:
                break
        assert best is not None  # epochs >= 1
        trial.restore()
    return Fitted(config, trial.head.cpu().eval(), inputs.encoder(), tuple(history), best[0], best[1])


class _Inputs(Protocol):
    """Where a trial's embeddings come from: the cache, or an encoder that trains along."""

    def embed(self, part: str, rows: Tensor) -> Tensor: ...

    def modules(self) -> list[nn.Module]: ...

    def encoder(self) -> SentenceEncoder | None: ...


class _Cached:
    """The frozen encoder's embeddings."""

    def __init__(self, train: Examples, validation: Examples, device: torch.device) -> None:
        self._parts = {
            "train": torch.from_numpy(train.embeddings).to(device),
            "validation": torch.from_numpy(validation.embeddings).to(device),
        }

    def embed(self, part: str, rows: Tensor) -> Tensor:
        return self._parts[part][rows]

    def modules(self) -> list[nn.Module]:
        return []

    def encoder(self) -> SentenceEncoder | None:
        return None


class _Live:
    """An encoder of which some or all layers train."""

    def __init__(self, train: Examples, validation: Examples, config: TrialConfig, encoder: Encoder) -> None:
        self._device = best_device()
        self._network = encoder.load().to(self._device).requires_grad_(False)
        self._trained = list(trainable_layers(self._network, config.finetune, config.last_n))
        for layer in self._trained:
            layer.requires_grad_(True)
        self._tokens: dict[str, Tokens] = {
            "train": tokenize(encoder, train.texts),
            "validation": tokenize(encoder, validation.texts),
        }

    def embed(self, part: str, rows: Tensor) -> Tensor:
        ids, mask = self._tokens[part].batch(rows.tolist())
        return self._network(ids.to(self._device), mask.to(self._device))

    def modules(self) -> list[nn.Module]:
        return self._trained

    def encoder(self) -> SentenceEncoder | None:
        return self._network.cpu().eval()


def _inputs(train: Examples, validation: Examples, config: TrialConfig, encoder: Encoder) -> _Inputs:
    if config.finetune == "head":
        return _Cached(train, validation, best_device())
    return _Live(train, validation, config, encoder)


class _Trial:
    """Network, optimiser and rows of one trial, on the device it runs on."""

    def __init__(
        self, train: Examples, validation: Examples, config: TrialConfig, inputs: _Inputs, n_labels: int
    ) -> None:
        device = best_device()
        self._config, self._inputs, self._validation, self._n_labels = config, inputs, validation, n_labels
        width, n_features = train.embeddings.shape[1], train.features.shape[1]
        self.head = Head(width, n_features, n_labels, config.hidden_units, config.dropout)
        self.head.scaling.fit(train.features)
        self.head.to(device)
        self._features = {
            "train": torch.from_numpy(train.features).to(device),
            "validation": torch.from_numpy(validation.features).to(device),
        }
        self._labels = torch.from_numpy(train.labels).to(device)
        weights = train.weights * class_weights(train.labels, n_labels)[train.labels]
        self._weights = torch.from_numpy(weights / weights.mean()).to(device)
        self._order = torch.Generator().manual_seed(config.seed)
        self._optimizer = torch.optim.AdamW(
            [
                {"params": list(self.head.parameters()), "lr": config.learning_rate},
                *(
                    {"params": list(layer.parameters()), "lr": config.learning_rate * _ENCODER_RATE}
                    for layer in inputs.modules()
                ),
            ],
            weight_decay=_WEIGHT_DECAY,
            fused=True,
        )
        self._kept = [copy_state(module) for module in self._modules()]

    def run_epoch(self, epoch: int) -> tuple[EpochMetrics, NDArray[np.float32]]:
        """One pass over the training rows; its metrics and the validation logits after it."""
        started = time.perf_counter()
        train_loss = self._learn(epoch)
        logits = self._validation_logits()
        labels, predicted = self._validation.labels, logits.argmax(axis=1)
        loss = nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
        metrics = EpochMetrics(
            epoch=epoch,
            train_loss=train_loss,
            validation_loss=float(loss),
            accuracy=float((labels == predicted).mean()),
            f1_weighted=float(Answered.of(labels, [predicted], self._n_labels).f1().weighted[0]),
            seconds=time.perf_counter() - started,
        )
        return metrics, logits

    def keep(self) -> None:
        """Remember the weights as they are now."""
        self._kept = [copy_state(module) for module in self._modules()]

    def restore(self) -> None:
        """Go back to the weights last kept."""
        for module, state in zip(self._modules(), self._kept, strict=True):
            module.load_state_dict(state)

    def _learn(self, epoch: int) -> float:
        self._set_mode(training=True)
        total = torch.zeros((), device=self._labels.device)
        for rows in torch.randperm(len(self._labels), generator=self._order).split(self._config.batch_size):
            on_device = rows.to(self._labels.device)
            logits = self.head(self._inputs.embed("train", on_device), self._features["train"][on_device])
            losses = nn.functional.cross_entropy(
                logits, self._labels[on_device], reduction="none", label_smoothing=self._config.label_smoothing
            )
            loss = (losses * self._weights[on_device]).mean()
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            total += loss.detach() * len(rows)
        mean = float(total) / len(self._labels)
        if not np.isfinite(mean):
            raise TrainingError(f"{self._config.name}: the loss is {mean} in epoch {epoch}; lower the learning rate")
        return mean

    def _validation_logits(self) -> NDArray[np.float32]:
        self._set_mode(training=False)
        device = self._labels.device
        with torch.inference_mode():
            parts = [
                self.head(self._inputs.embed("validation", rows), self._features["validation"][rows])
                for rows in torch.arange(len(self._validation), device=device).split(_PREDICT_BATCH)
            ]
            return torch.cat(parts).float().cpu().numpy()

    def _set_mode(self, *, training: bool) -> None:
        for module in self._modules():
            module.train(training)

    def _modules(self) -> list[nn.Module]:
        return [self.head, *self._inputs.modules()]


@contextmanager
def _seeded(config: TrialConfig) -> Iterator[None]:
    """Own random state, so that a trial neither sees nor disturbs what runs beside it; threads that suit its size."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        if config.finetune == "head":
            stack.enter_context(one_thread_per_operation())
        torch.manual_seed(config.seed)
        yield
