"""BentoML with its adaptive batching; run by `bentoml serve` in the benchmark's own environment."""

from __future__ import annotations

from typing import Any

import bentoml
from plain import Batches


@bentoml.service(workers=2)
class IntentClassifier:
    def __init__(self) -> None:
        self.batches = Batches()

    @bentoml.api(batchable=True)
    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        return self.batches.answer(texts)
