"""MLflow models as others make them: a scikit-learn pipeline, and pyfunc models of which a test writes the code."""

from __future__ import annotations

import logging
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlops_assets.resources.mlflow_model import model_digest
from mlops_assets.resources.mlflow_store import connect, experiment_id
from mlops_assets.resources.registry import Registry, Version
from mlops_assets.settings import Settings
from mlops_assets.spec import DEFAULT_LABELS, FeatureSpec

START = datetime(2026, 3, 1, tzinfo=UTC)
FEATURES = tuple(FeatureSpec().defaults)
_PHRASES = {
    "greeting": "hello there",
    "farewell": "goodbye now",
    "query": "do you sell shoes",
    "complaint": "this is terrible",
    "order_status": "where is my parcel",
    "refund": "give my money back",
    "other": "lorem ipsum dolor",
}
_PYFUNC = """\
{imports}
import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

LABELS = {labels!r}


class Written(PythonModel):
    def predict(self, context, model_input, params=None):
{body}

set_model(Written())
"""


def sklearn_arguments() -> dict[str, Any]:
    """What `mlflow.sklearn.log_model` and `save_model` need: a pipeline that knows a phrase of each label."""
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    frame = pd.DataFrame({"text": list(_PHRASES.values()), "orders_90d": 1.0})
    columns = [("words", TfidfVectorizer(), "text"), ("numbers", "passthrough", ["orders_90d"])]
    pipeline = make_pipeline(ColumnTransformer(columns), LogisticRegression(C=100.0))
    return {
        "sk_model": pipeline.fit(frame, list(_PHRASES)),
        "signature": signature("text", "orders_90d"),
        "pip_requirements": ["scikit-learn"],
        "pyfunc_predict_fn": "predict_proba",
    }


def pyfunc_arguments(
    code: Path, body: str, *columns: str, metadata: dict[str, Any] | None = None, imports: str = ""
) -> dict[str, Any]:
    """What `mlflow.pyfunc.log_model` and `save_model` need: a model whose `predict` is `body`, written to `code`.

    It may use `model_input`, `np`, `pd` and `LABELS`. Without `columns` it has no signature.
    """
    code.parent.mkdir(parents=True, exist_ok=True)
    indented = textwrap.indent(textwrap.dedent(body), " " * 8)
    code.write_text(_PYFUNC.format(imports=imports, labels=DEFAULT_LABELS, body=indented))
    return {
        "python_model": str(code),
        "signature": signature(*columns) if columns else None,
        "pip_requirements": ["mlflow"],
        "metadata": metadata,
    }


def signature(*columns: str) -> Any:
    """`text` as a string, the returned share as a single-precision number, whatever else as a double."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    kinds = {"text": DataType.string, "return_share_90d": DataType.float}
    return ModelSignature(inputs=Schema([ColSpec(kinds.get(name, DataType.double), name) for name in columns]))


@contextmanager
def unadvised() -> Iterator[None]:
    """Without MLflow's advice to authors of models."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def save_sklearn(folder: Path) -> Path:
    import mlflow.sklearn

    mlflow.sklearn.save_model(path=str(folder), **sklearn_arguments())
    return folder


def save_pyfunc(folder: Path, body: str, *columns: str, code_paths: Sequence[Path] = (), **more: Any) -> Path:
    import mlflow.pyfunc

    arguments = pyfunc_arguments(folder.with_suffix(".py"), body, *columns, **more)
    with unadvised():
        mlflow.pyfunc.save_model(path=str(folder), code_paths=[str(path) for path in code_paths] or None, **arguments)
    return folder


def log_sklearn(settings: Settings, model: str) -> str:
    """Log the pipeline, registered as a version of `model`, as its author would; returns its address."""
    return _log(settings, "sklearn", sklearn_arguments(), model, model)


def log_pyfunc(settings: Settings, body: str, model: str, registered_as: str | None = None) -> str:
    """Log a pyfunc whose `predict` is `body`, in the experiment of `model`; returns its address."""
    return _log(settings, "pyfunc", pyfunc_arguments(settings.home / "written.py", body, "text"), model, registered_as)


def _log(settings: Settings, flavour: str, arguments: dict[str, Any], model: str, registered_as: str | None) -> str:
    import mlflow.pyfunc
    import mlflow.sklearn

    mlflow.set_tracking_uri(settings.tracking_uri)
    experiment = experiment_id(connect(settings), settings, model)
    with unadvised(), mlflow.start_run(experiment_id=experiment):
        info = getattr(mlflow, flavour).log_model(name="theirs", registered_model_name=registered_as, **arguments)
    return f"models:/{registered_as}/{info.registered_model_version}" if registered_as else str(info.model_uri)


def record(registry: Registry, model: str, address: str) -> Version:
    """A logged model with its digest recorded, as `mlops register` does it, but without asking it."""
    logged = registry.logged_model(model, address)
    with logged.folder() as folder:
        return registry.register_logged(model, logged, model_digest(folder), {"trained_until": START.isoformat()})
