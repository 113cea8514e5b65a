"""LitServe with batches of up to eight; run in the benchmark's own environment."""

from __future__ import annotations

import sys
from typing import Any

import litserve
from plain import Batches


class IntentClassifier(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002
        self.batches = Batches()

    def decode_request(self, request) -> str:  # no type: it would become that of the route
        return str(request["text"])

    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        return self.batches.answer(texts)

    def encode_response(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer


if __name__ == "__main__":
    api = IntentClassifier(max_batch_size=8, batch_timeout=0.0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error")
