"""The exported model as an MLflow pyfunc, logged as code: MLflow runs this file, no pickle is loaded.

Turns a frame with `text` and, where known, feature columns into labels; how the artefact is checked,
read and run is left to `mlops_assets.training.artefact`, which travels with the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from mlops_assets.training.artefact import Predictor


class ExportedClassifier(PythonModel):
    """`predict` of a frame with column `text`: one row each of label, confidence and `p_<label>`."""

    def load_context(self, context: Any) -> None:
        folder = Path(context.artifacts["artefact"])
        self.predictor = Predictor.load(folder, expected_digest=context.model_config["digest"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        texts = [str(text) for text in model_input["text"]]
        probabilities = self.predictor.predict(texts, self._features(model_input)).probabilities
        columns = {f"p_{label}": probabilities[:, i] for i, label in enumerate(self.predictor.labels)}
        labels = [self.predictor.labels[i] for i in probabilities.argmax(axis=1)]
        return pd.DataFrame({"label": labels, "confidence": probabilities.max(axis=1), **columns})

    def _features(self, frame: pd.DataFrame) -> np.ndarray:
        """(n, f) float32; NaN where a feature is not given: the predictor puts its declared default."""
        return frame.reindex(columns=list(self.predictor.feature_names)).to_numpy(dtype=np.float32, na_value=np.nan)


set_model(ExportedClassifier())
