"""Ray Serve as its getting-started page shows it: one deployment, two replicas, Ray's own proxy."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import serve
from starlette.requests import Request

from mlops_assets.training.artefact import Predictor


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.2})
class IntentClassifier:
    def __init__(self) -> None:
        self.predictor = Predictor.load(Path(os.environ["BENCH_ARTEFACT"]), expected_digest=None)
        self.features = np.array([list(self.predictor.feature_defaults.values())], np.float32)

    async def __call__(self, request: Request) -> dict[str, Any]:
        text = (await request.json())["text"]
        row = self.predictor.predict([text], self.features).probabilities[0]
        return {"label": self.predictor.labels[int(row.argmax())], "confidence": float(row.max())}


def main(port: int) -> None:
    stopped = threading.Event()
    with tempfile.TemporaryDirectory(prefix="bench-ray-", ignore_cleanup_errors=True) as folder:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(IntentClassifier.bind())
        stopped.wait()
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
