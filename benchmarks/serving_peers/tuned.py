"""FastAPI, ONNX and micro-batches, tuned by hand: a server with nothing around the model. Run by uvicorn.

As one would write it, with what is pending sorted by length and run in chunks; or, with `BENCH_BATCHER=ours`, on the
product's own batcher and predictor, so that what the product costs more is what it does more.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from plain import Batches
from pydantic import BaseModel

from mlops_assets.serving.batcher import MicroBatcher
from mlops_assets.training.artefact import Predictor

CHUNK = 8


class ByLength:
    """Runs all that is pending, short texts first, in chunks and without waiting."""

    def __init__(self) -> None:
        self._batches = Batches()
        self._pending: queue.SimpleQueue[tuple[str, asyncio.Future[Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def ask(self, text: str) -> asyncio.Future[Any]:
        """Queue one text; the running loop's future holds its label and confidence."""
        future = asyncio.get_running_loop().create_future()
        self._pending.put((text, future))
        return future

    def _run(self) -> None:
        while True:
            taken = [self._pending.get()]
            while not self._pending.empty():
                taken.append(self._pending.get())
            taken.sort(key=lambda item: len(item[0]))
            for start in range(0, len(taken), CHUNK):
                texts, futures = zip(*taken[start : start + CHUNK], strict=True)
                futures[0].get_loop().call_soon_threadsafe(_settle, futures, self._batches.answer(texts))


def _settle(futures: Any, replies: Any) -> None:
    for future, reply in zip(futures, replies, strict=True):
        if not future.done():  # its caller may have gone
            future.set_result(reply)


def _ours() -> Callable[[str], Awaitable[Any]]:
    predictor = Predictor.load(Path(os.environ["BENCH_ARTEFACT"]), expected_digest=None)
    defaults = np.array(list(predictor.feature_defaults.values()), np.float32)
    batcher = MicroBatcher(predictor)

    async def ask(text: str) -> Any:
        row = (await batcher.submit(text, defaults)).tolist()
        confidence = max(row)
        return {"label": predictor.labels[row.index(confidence)], "confidence": confidence}

    return ask


ask = _ours() if os.environ.get("BENCH_BATCHER") == "ours" else ByLength().ask
app = FastAPI()


class Body(BaseModel):
    text: str


@app.post("/predict")
async def predict(body: Body) -> JSONResponse:
    return JSONResponse(await ask(body.text))
