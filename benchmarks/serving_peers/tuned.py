"""FastAPI, ONNX and micro-batches, tuned by hand: a server with nothing around the model. Run by uvicorn.

It uses the product's own micro-batcher and predictor, so what the product costs more is what it does more.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import numpy as np
from fastapi import FastAPI, Response
from pydantic import BaseModel

from mlops_assets.serving.batcher import MicroBatcher
from mlops_assets.training.artefact import Predictor

predictor = Predictor.load(Path(os.environ["BENCH_ARTEFACT"]), expected_digest=None, threads=1)
defaults = np.array(list(predictor.feature_defaults.values()), np.float32)
batcher = MicroBatcher(predictor)
app = FastAPI()


class Body(BaseModel):
    text: str


@app.post("/predict")
async def predict(body: Body) -> Response:
    row = (await asyncio.wrap_future(batcher.submit(body.text, defaults))).tolist()
    confidence = max(row)
    reply = {"label": predictor.labels[row.index(confidence)], "confidence": confidence}
    return Response(json.dumps(reply), media_type="application/json")
