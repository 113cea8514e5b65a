"""BentoML with its adaptive batching; run by `bentoml serve` in the benchmark's own environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bentoml
import numpy as np

from mlops_assets.training.artefact import Predictor


@bentoml.service(workers=2)
class IntentClassifier:
    def __init__(self) -> None:
        self.predictor = Predictor.load(Path(os.environ["BENCH_ARTEFACT"]), expected_digest=None)
        self.defaults = np.array(list(self.predictor.feature_defaults.values()), np.float32)

    @bentoml.api(batchable=True)
    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        rows = self.predictor.predict(texts, np.tile(self.defaults, (len(texts), 1))).probabilities
        return [{"label": self.predictor.labels[int(row.argmax())], "confidence": float(row.max())} for row in rows]
