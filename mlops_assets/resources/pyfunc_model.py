"""The exported model as an MLflow pyfunc, logged as code: MLflow runs this file, no pickle is loaded.

Turns a frame with `text` and, where known, feature columns into labels; how the artefact is read and
run is left to `mlops_assets.training.artefact`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from mlops_assets.training.artefact import Predictor


class ExportedClassifier(PythonModel):
    """`predict` of a frame with column `text`: one row each of label, confidence and `p_<label>`."""

    def load_context(self, context: Any) -> None:
        self.predictor = Predictor.load(context.artifacts["artefact"], expected_digest=context.model_config["digest"])

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        frame = pd.DataFrame(model_input)
        prediction = self.predictor.predict([str(text) for text in frame["text"]], self._features(frame))
        probabilities = prediction.probabilities
        best = probabilities.argmax(axis=1)
        columns = {f"p_{label}": probabilities[:, i] for i, label in enumerate(self.predictor.labels)}
        labels = [self.predictor.labels[i] for i in best]
        return pd.DataFrame({"label": labels, "confidence": probabilities.max(axis=1), **columns})

    def _features(self, frame: pd.DataFrame) -> np.ndarray:
        """(n, f) float32; a feature that is not given, or null, takes its declared default."""
        names, defaults = self.predictor.feature_names, self.predictor.feature_defaults
        features = np.empty((len(frame), len(names)), dtype=np.float32)
        for i, name in enumerate(names):
            given = frame[name].fillna(defaults[name]) if name in frame else defaults[name]
            features[:, i] = given
        return features


set_model(ExportedClassifier())
