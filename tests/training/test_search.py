"""Every declared configuration is tried on the same rows; the best on validation wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlops_assets.spec import SearchSpec, TrainingSpec
from mlops_assets.training.fit import EpochMetrics, Fitted, TrialConfig
from mlops_assets.training.search import configurations, search
from tests.training.factories import examples, tiny_encoder

SPEC = TrainingSpec(
    hidden_units=8, search=SearchSpec(learning_rate=(1e-5, 1e-2), batch_size=(32,), epochs=(4,), dropout=(0.0, 0.2))
)


def test_configurations_are_the_cross_product_with_unique_names() -> None:
    configs = configurations(SPEC)
    assert [(c.learning_rate, c.dropout) for c in configs] == [(1e-5, 0.0), (1e-5, 0.2), (1e-2, 0.0), (1e-2, 0.2)]
    assert len({config.name for config in configs}) == 4
    assert {config.label_smoothing for config in configs} == {SPEC.label_smoothing}


def test_the_best_wins_and_every_trial_is_told_of(encoder_folder: Path) -> None:
    epochs: list[tuple[TrialConfig, EpochMetrics]] = []
    trials: list[Fitted] = []
    result = search(
        examples(200, seed=1),
        examples(100, seed=2),
        configurations(SPEC),
        tiny_encoder(encoder_folder),
        3,
        on_epoch=lambda config, metrics: epochs.append((config, metrics)),
        on_trial=trials.append,
    )
    assert result.best.config.learning_rate == 1e-2
    assert result.best.best.f1_weighted == max(outcome.best.f1_weighted for outcome in result.outcomes)
    assert [fitted.config for fitted in trials] == [outcome.config for outcome in result.outcomes]
    assert [metrics for _, metrics in epochs] == [m for outcome in result.outcomes for m in outcome.history]


def test_nothing_to_try_is_an_error(encoder_folder: Path) -> None:
    with pytest.raises(ValueError, match="at least one configuration"):
        search(
            examples(9, 1),
            examples(9, 2),
            (),
            tiny_encoder(encoder_folder),
            3,
            on_epoch=lambda *_: None,
            on_trial=lambda *_: None,
        )
