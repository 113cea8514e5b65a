"""A packed model loads through MLflow alone, in a process that knows nothing of this project."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_assets.resources.registry import Registry
from mlops_assets.settings import Settings
from mlops_assets.training.export import export_model
from tests.training import tiny


@pytest.mark.slow
def test_a_registered_model_is_loaded_and_asked_by_mlflow_itself(
    registry: Registry, settings: Settings, tmp_path: Path
) -> None:
    encoder = tiny.write_encoder(tmp_path / "encoder")
    folder = tmp_path / "tiny"
    digest = export_model(
        tiny.classifier(encoder), encoder / "tokenizer.json", tiny.manifest(), folder, samples=["hello"]
    )
    registry.register("tiny", None, folder, digest, "", {})
    ask = (
        "import mlflow, pandas as pd, mlops_assets\n"
        "model = mlflow.pyfunc.load_model('models:/tiny/1')\n"
        "answer = model.predict(pd.DataFrame({'text': ['hello', 'refund'], 'orders_90d': [1.0, None]}))\n"
        "print(list(answer.columns), len(answer))"
    )
    environment = {**os.environ, "MLFLOW_TRACKING_URI": settings.tracking_uri}
    asked = subprocess.run(
        [sys.executable, "-c", ask], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert "['label', 'confidence', 'p_greeting', 'p_order_status', 'p_refund'] 2" in asked.stdout, asked.stderr
