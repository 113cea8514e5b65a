"""Ray Serve as its getting-started page shows it: one deployment, two replicas, Ray's own proxy."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from typing import Any

import ray
from plain import Batches
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 0.2})
class IntentClassifier:
    def __init__(self) -> None:
        self.batches = Batches()

    async def __call__(self, request: Request) -> dict[str, Any]:
        text = (await request.json())["text"]
        return self.batches.answer([text])[0]


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
