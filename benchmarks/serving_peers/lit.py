"""LitServe with batches of up to eight; run in the benchmark's own environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np

from mlops_assets.training.artefact import Predictor


class IntentClassifier(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002
        self.predictor = Predictor.load(Path(os.environ["BENCH_ARTEFACT"]), expected_digest=None)
        self.defaults = np.array(list(self.predictor.feature_defaults.values()), np.float32)

    def decode_request(self, request) -> str:  # no type: it would become that of the route
        return str(request["text"])

    def predict(self, texts: list[str]) -> list[Any]:
        return list(self.predictor.predict(texts, np.tile(self.defaults, (len(texts), 1))).probabilities)

    def encode_response(self, row: Any) -> dict[str, Any]:
        return {"label": self.predictor.labels[int(row.argmax())], "confidence": float(row.max())}


if __name__ == "__main__":
    api = IntentClassifier(max_batch_size=8, batch_timeout=0.0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error")
