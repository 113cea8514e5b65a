"""A trial learns, stops, keeps its best epoch, and does exactly the same again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from mlops_assets.training.encoder import Encoder
from mlops_assets.training.examples import Examples
from mlops_assets.training.fit import EpochMetrics, Fitted, TrainingError, TrialConfig, fit
from tests.training.factories import examples, tiny_encoder

CONFIG = TrialConfig(learning_rate=0.01, batch_size=32, epochs=12, hidden_units=16, early_stopping_epochs=3, seed=5)
TRAIN, VALIDATION = examples(300, seed=1), examples(120, seed=2)


@pytest.fixture(scope="module")
def encoder(encoder_folder: Path) -> Encoder:
    return tiny_encoder(encoder_folder)


def trial(encoder: Encoder, config: TrialConfig = CONFIG, train: Examples = TRAIN) -> Fitted:
    """A trial that nobody listens to."""
    return fit(train, VALIDATION, config, encoder, 3, lambda *_: None)


def weights(module: torch.nn.Module) -> list[np.ndarray]:
    return [value.numpy() for value in module.state_dict().values()]


def test_it_learns_and_reports_every_epoch(encoder: Encoder) -> None:
    told: list[EpochMetrics] = []
    fitted = fit(TRAIN, VALIDATION, CONFIG, encoder, 3, told.append)
    assert fitted.best.f1_weighted > 0.95
    assert tuple(told) == fitted.history
    assert [metrics.epoch for metrics in told] == list(range(1, len(told) + 1))
    assert told[-1].train_loss < told[0].train_loss


def test_the_figures_of_an_epoch_are_those_of_its_answers(encoder: Encoder) -> None:
    fitted = trial(encoder, replace(CONFIG, epochs=1))
    answers = fitted.validation_logits.argmax(axis=1)
    expected = f1_score(VALIDATION.labels, answers, average="weighted", zero_division=0)
    assert fitted.best.f1_weighted == pytest.approx(expected)
    assert fitted.best.accuracy == accuracy_score(VALIDATION.labels, answers) < 1


def test_the_same_rows_and_configuration_give_the_same_weights(encoder: Encoder) -> None:
    torch.manual_seed(1)
    first = trial(encoder)
    torch.manual_seed(2)
    second = trial(encoder)
    for one, other in zip(weights(first.head), weights(second.head), strict=True):
        np.testing.assert_array_equal(one, other)
    other_seed = trial(encoder, replace(CONFIG, seed=6))
    assert any((a != b).any() for a, b in zip(weights(first.head), weights(other_seed.head), strict=True))


def test_it_leaves_the_random_state_of_the_process_alone(encoder: Encoder) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    trial(encoder, replace(CONFIG, epochs=1))
    assert torch.equal(torch.rand(4), expected)


def test_the_best_epoch_is_kept_and_a_trial_without_progress_stops(encoder: Encoder) -> None:
    noise = replace(TRAIN, labels=np.random.default_rng(0).integers(0, 3, len(TRAIN)))
    fitted = trial(encoder, replace(CONFIG, epochs=60), noise)
    assert fitted.best.f1_weighted == max(metrics.f1_weighted for metrics in fitted.history)
    assert len(fitted.history) == fitted.best.epoch + CONFIG.early_stopping_epochs
    with torch.inference_mode():
        logits = fitted.head(torch.from_numpy(VALIDATION.embeddings), torch.from_numpy(VALIDATION.features))
    np.testing.assert_allclose(logits.numpy(), fitted.validation_logits, atol=1e-5)


def test_heavier_rows_win_where_rows_disagree(encoder: Encoder) -> None:
    rng = np.random.default_rng(7)
    disputed = replace(TRAIN, labels=np.where(rng.random(len(TRAIN)) < 0.5, TRAIN.labels, (TRAIN.labels + 1) % 3))
    true = disputed.labels == TRAIN.labels
    favoured = replace(disputed, weights=np.where(true, 5.0, 1.0).astype(np.float32))
    plain = trial(encoder, replace(CONFIG, epochs=5), disputed).best.validation_loss
    assert trial(encoder, replace(CONFIG, epochs=5), favoured).best.validation_loss < plain


def test_an_extreme_feature_value_does_not_sway_the_answer(encoder: Encoder) -> None:
    head = trial(encoder).head
    embeddings = torch.from_numpy(VALIDATION.embeddings)
    with torch.inference_mode():
        usual = head(embeddings, torch.from_numpy(VALIDATION.features)).argmax(dim=1)
        extreme = head(embeddings, torch.full((len(VALIDATION), 2), 1e12)).argmax(dim=1)
    assert (usual == extreme).float().mean() > 0.95


def test_a_loss_that_explodes_is_a_clear_error(encoder: Encoder) -> None:
    with pytest.raises(TrainingError, match="lower the learning rate"):
        trial(encoder, replace(CONFIG, learning_rate=1e38))


@pytest.mark.slow
@pytest.mark.parametrize(("finetune", "moved"), [("last_n", {"layer.1"}), ("full", {"layer.0", "layer.1"})])
def test_finetuning_moves_the_declared_layers_and_no_others(encoder: Encoder, finetune: str, moved: set[str]) -> None:
    config = replace(CONFIG, finetune=finetune, last_n=1, epochs=6, learning_rate=0.02)
    fitted = trial(encoder, config)
    assert fitted.encoder is not None
    before, after = encoder.load().state_dict(), fitted.encoder.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {layer for layer in ("layer.0", "layer.1") if any(layer in name for name in changed)} == moved
    assert fitted.best.f1_weighted > 0.9  # the texts, unlike the random encoder, tell the labels apart


def test_only_the_head_trains_by_default(encoder: Encoder) -> None:
    assert trial(encoder, replace(CONFIG, epochs=1)).encoder is None
