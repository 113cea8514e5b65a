"""FastAPI, ONNX and micro-batches, tuned by hand: a server with nothing around the model. Run by uvicorn.

As one would write it, with what is pending sorted by length and run in chunks; or, with `BENCH_BATCHER=ours`, on the
product's own batcher, so that what the product costs more is what it does more.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import threading
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Response
from pydantic import BaseModel

from mlops_assets.serving.batcher import MicroBatcher
from mlops_assets.training.artefact import Predictor

CHUNK = 8


class ByLength:
    """Runs all that is pending, short texts first, in chunks and without waiting."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._pending: queue.SimpleQueue[tuple[str, Any, asyncio.Future[Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, text: str, features: Any) -> asyncio.Future[Any]:
        """Queue one text; the running loop's future holds its probabilities."""
        future = asyncio.get_running_loop().create_future()
        self._pending.put((text, features, future))
        return future

    def _run(self) -> None:
        while True:
            taken = [self._pending.get()]
            while not self._pending.empty():
                taken.append(self._pending.get())
            taken.sort(key=lambda item: len(item[0]))
            for start in range(0, len(taken), CHUNK):
                texts, features, futures = zip(*taken[start : start + CHUNK], strict=True)
                rows = self._predictor.predict(texts, np.stack(features)).probabilities
                futures[0].get_loop().call_soon_threadsafe(_settle, futures, rows)


def _settle(futures: Any, rows: Any) -> None:
    for future, row in zip(futures, rows, strict=True):
        if not future.done():  # its caller may have gone
            future.set_result(row)


predictor = Predictor.load(Path(os.environ["BENCH_ARTEFACT"]), expected_digest=None, threads=1)
defaults = np.array(list(predictor.feature_defaults.values()), np.float32)
batcher = MicroBatcher(predictor) if os.environ.get("BENCH_BATCHER") == "ours" else ByLength(predictor)
app = FastAPI()


class Body(BaseModel):
    text: str


@app.post("/predict")
async def predict(body: Body) -> Response:
    row = (await batcher.submit(body.text, defaults)).tolist()
    confidence = max(row)
    reply = {"label": predictor.labels[row.index(confidence)], "confidence": confidence}
    return Response(json.dumps(reply), media_type="application/json")
