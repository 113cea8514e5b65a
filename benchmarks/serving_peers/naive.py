"""FastAPI as it is written first: the model is called in the endpoint. Run by uvicorn."""

from __future__ import annotations

import os
from typing import Any

import mlflow
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

model = mlflow.pyfunc.load_model(os.environ["BENCH_TORCH"])
app = FastAPI()


class Body(BaseModel):
    text: str


@app.post("/predict")
def predict(body: Body) -> dict[str, Any]:
    return model.predict(pd.DataFrame({"text": [body.text]})).to_dict("records")[0]
