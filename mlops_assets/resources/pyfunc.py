"""Any MLflow model as a predictor, through MLflow's pyfunc: texts and features in, probabilities out.

It knows how our messages become the frame that a model's signature asks for. Which answers are understood
is `pyfunc_output`'s matter, which files are loaded `mlflow_model`'s. MLflow is imported when a model is
loaded, never before.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_assets.resources.mlflow_model import COPIES, PrivateCopy, verified_copy
from mlops_assets.resources.packaging import ArtefactMismatch
from mlops_assets.resources.pyfunc_output import Floats, UnusableOutput, read_output
from mlops_assets.spec import ModelSpec
from mlops_assets.training.artefact import ArtefactError, feature_rows

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

TEXT = "text"
# Asked one by one and together when a model is loaded: some forms of an answer show only with one message, or with two.
_SAMPLES = ("hello", "where is my order?")
# Loading a model changes `sys.path` and `sys.modules`, which all threads share.
_loading = threading.Lock()


@dataclass(frozen=True)
class Answered:
    """Probabilities (n, labels) of n messages, float32."""

    probabilities: Floats


class PyfuncPredictor:
    """Runs one MLflow model of any flavour; `PyfuncPredictor.load` makes it."""

    def __init__(self, model: PyFuncModel, spec: ModelSpec, copy: PrivateCopy) -> None:
        self.labels = spec.data.labels
        self.feature_names = tuple(spec.features.defaults)
        self._defaults = np.array(list(spec.features.defaults.values()), dtype=np.float32)
        self._model = model
        self._copy = copy  # some flavours read their files only when they are asked
        self._types = _column_types(model, self.feature_names)
        self._output_columns = _output_columns(model)

    @classmethod
    def load(cls, folder: Path, *, expected_digest: str, spec: ModelSpec) -> PyfuncPredictor:
        """Verify a model's files, load it, and ask it once to see whether it can be served.

        Loading runs code of the model: the digest is checked before that, and whoever may register a model may run
        code here.

        Args:
            folder: an MLflow model, as `log_model` wrote it.
            expected_digest: `mlflow_model.model_digest` as the registry recorded it.
            spec: the declared labels and features.

        Raises:
            ArtefactError: a file is not the one that was registered, the model cannot be loaded, its signature asks
                for what there is not, or it answers in a form that is not understood.
        """
        try:
            copy = verified_copy(folder, expected_digest)
            predictor = cls(_loaded(copy.path), spec, copy)
            for texts in (*([text] for text in _SAMPLES), _SAMPLES):
                predictor.predict(texts, feature_rows(predictor.feature_names, [{}] * len(texts)))
        except (ArtefactError, ArtefactMismatch, UnusableOutput) as error:
            raise ArtefactError(f"{folder} cannot be served: {error}") from error
        except Exception as error:  # it is a stranger's code that ran: anything may come
            raise ArtefactError(f"{folder} cannot be served: {type(error).__name__}: {error}") from error
        return predictor

    def predict(self, texts: Sequence[str], features: Floats) -> Answered:
        """Classify n messages; `features` (n, f), a value that is not finite takes its declared default.

        Raises:
            UnusableOutput: the model answered in another form than is understood.
        """
        import pandas as pd

        filled = np.where(np.isfinite(features), features, self._defaults)
        columns: dict[str, Any] = {TEXT: list(texts)}
        columns |= {name: filled[:, number] for number, name in enumerate(self.feature_names)}
        frame = pd.DataFrame({name: columns[name] for name in self._types}).astype(self._types)
        answer = self._model.predict(frame)
        return Answered(read_output(answer, len(texts), self.labels, self._output_columns))


def _loaded(folder: Path) -> PyFuncModel:
    from mlops_assets.resources.mlflow_store import quiet_mlflow

    quiet_mlflow()
    import mlflow.pyfunc

    with _loading:
        _forget_other_models_code()
        return mlflow.pyfunc.load_model(str(folder), suppress_warnings=True)


def _forget_other_models_code() -> None:
    """Let a model that brings code import its own modules, not those of the same name that another one brought.

    The other model keeps what it has imported; what it imports only later may come from this one.
    """
    for name, module in list(sys.modules.items()):
        if f"/{COPIES}" in (getattr(module, "__file__", None) or ""):
            del sys.modules[name]


def _column_types(model: PyFuncModel, features: Sequence[str]) -> dict[str, str]:
    """The columns that the model is given, with their pandas types: those that its signature names, or all.

    Raises:
        ArtefactError: the signature asks for a column that there is not, or for no columns at all.
    """
    there = dict.fromkeys((TEXT, *features), "float64") | {TEXT: "object"}
    schema = model.metadata.get_input_schema()
    if schema is None:
        return there
    if schema.is_tensor_spec() or not schema.has_input_names():
        raise ArtefactError(f"its signature ({schema}) names no columns; it is given a DataFrame of {', '.join(there)}")
    lacking = [name for name in schema.required_input_names() if name not in there]
    if lacking:
        raise ArtefactError(f"its signature asks for {', '.join(lacking)}, and there are: {', '.join(there)}")
    single = {name for name, asked in schema.input_types_dict().items() if str(asked) == "DataType.float"}
    types = there | dict.fromkeys(single & set(features), "float32")
    return {name: types[name] for name in schema.input_names() if name in there}


def _output_columns(model: PyFuncModel) -> list[str] | None:
    """What the columns of an array of probabilities are called: as its author says, else as its `classes_` do."""
    said = (model.metadata.metadata or {}).get("labels")
    if said is None:
        try:
            said = getattr(model.get_raw_model(), "classes_", None)
        except NotImplementedError:
            return None
    return None if said is None else [str(label) for label in said]
