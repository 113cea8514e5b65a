"""Any MLflow model is a predictor like our own export: verified, then loaded, then asked once to see that it fits."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mlops_assets.resources import mlflow_model
from mlops_assets.resources.mlflow_model import model_digest
from mlops_assets.resources.predictors import load_predictor
from mlops_assets.resources.pyfunc import PyfuncPredictor
from mlops_assets.spec import DEFAULT_LABELS, FeatureSpec, ModelSpec
from mlops_assets.training.artefact import ArtefactError, feature_rows
from tests.resources.foreign import FEATURES, save_pyfunc, save_sklearn

pytestmark = pytest.mark.slow  # logs and loads MLflow models

SPEC = ModelSpec(name="m", features=FeatureSpec(defaults=dict.fromkeys(FEATURES, 7.0)))
SHARES = "return pd.DataFrame(np.full((len(model_input), len(LABELS)), 1 / len(LABELS)), columns=LABELS)"
# Writes what it was given into its answer: the label is that whose number is the first feature.
ECHO = "return [LABELS[int(number)] for number in model_input['orders_90d']]"


def loaded(folder: Path) -> PyfuncPredictor:
    return PyfuncPredictor.load(folder, expected_digest=model_digest(folder), spec=SPEC)


def labels_of(predictor: PyfuncPredictor, texts: Sequence[str], orders: float | None = 0.0) -> list[str]:
    rows = feature_rows(predictor.feature_names, [{"orders_90d": orders}] * len(texts))
    return [DEFAULT_LABELS[best] for best in predictor.predict(texts, rows).probabilities.argmax(axis=1)]


def test_a_scikit_learn_pipeline_answers_in_the_declared_order_of_labels(tmp_path: Path) -> None:
    predictor = loaded(save_sklearn(tmp_path / "model"))
    texts = ["where is my parcel", "hello there", "give my money back"]
    assert labels_of(predictor, texts) == ["order_status", "greeting", "refund"]
    answer = predictor.predict(texts, feature_rows(predictor.feature_names, [{}] * 3)).probabilities
    assert (answer.dtype, answer.shape) == (np.float32, (3, len(DEFAULT_LABELS)))
    assert answer.sum(axis=1) == pytest.approx(1.0)


def test_a_feature_that_was_not_looked_up_takes_its_declared_default(tmp_path: Path) -> None:
    spec = ModelSpec(name="m", features=FeatureSpec(defaults=dict.fromkeys(FEATURES, 5.0)))
    folder = save_pyfunc(tmp_path / "model", ECHO, "text", "orders_90d")
    predictor = PyfuncPredictor.load(folder, expected_digest=model_digest(folder), spec=spec)
    assert labels_of(predictor, ["a"], orders=2.0) == [DEFAULT_LABELS[2]]
    assert labels_of(predictor, ["a"], orders=None) == [DEFAULT_LABELS[5]]


@pytest.mark.parametrize(
    ("columns", "given"),
    [
        (("text",), ["text"]),
        (("spend_90d", "text"), ["spend_90d", "text"]),
        (("text", "return_share_90d"), ["text", "return_share_90d"]),
        ((), ["text", *FEATURES]),
    ],
)
def test_a_model_is_given_the_columns_that_its_signature_names_or_else_all(
    tmp_path: Path, columns: tuple[str, ...], given: list[str]
) -> None:
    body = f"assert list(model_input) == {given}, list(model_input)\nreturn ['query'] * len(model_input)"
    assert labels_of(loaded(save_pyfunc(tmp_path / "model", body, *columns)), ["a"]) == ["query"]


def test_an_array_takes_its_labels_from_what_the_author_said(tmp_path: Path) -> None:
    body = "return np.tile([1.0, 0.0], (len(model_input), 1))"
    folder = save_pyfunc(tmp_path / "model", body, "text", metadata={"labels": ["refund", "query"]})
    assert labels_of(loaded(folder), ["a"]) == ["refund"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return {'label': 'query'}", "dict came; accepted are"),
        ("return np.eye(len(LABELS))[: len(model_input)]", "without names for its 7 columns"),
        ("return ['praise'] * len(model_input)", "'praise' is no declared label (these are: greeting, farewell"),
        ("return ['query']", "1 answers came for 2 messages"),
        ("return model_input['text'].map(len)", "int64 without names"),
        ("raise KeyError('subject')", "KeyError: 'subject'"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused_when_it_is_loaded(tmp_path: Path, body: str, says: str) -> None:
    with pytest.raises(ArtefactError, match="cannot be served") as refused:
        loaded(save_pyfunc(tmp_path / "model", body, "text"))
    assert says in str(refused.value)


def test_a_signature_that_asks_for_what_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="asks for age, and there are: text, orders_90d"):
        loaded(save_pyfunc(tmp_path / "model", SHARES, "text", "age"))


def test_a_changed_added_or_lost_file_is_refused_before_any_of_it_runs(tmp_path: Path) -> None:
    folder = save_pyfunc(tmp_path / "model", SHARES, "text")
    digest = model_digest(folder)
    ran = tmp_path / "ran"
    (code,) = folder.glob("*.py")
    honest = code.read_text()

    def refused() -> bool:
        with pytest.raises(ArtefactError, match="was changed, added or taken away since it was registered"):
            PyfuncPredictor.load(folder, expected_digest=digest, spec=SPEC)
        return not ran.exists()

    code.write_text(f"open({str(ran)!r}, 'w')\n{honest}")
    assert refused()
    code.write_text(honest)
    (folder / "sitecustomize.py").write_text(f"open({str(ran)!r}, 'w')")
    assert refused()
    (folder / "sitecustomize.py").unlink()
    (folder / "requirements.txt").unlink()
    assert refused()


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="gone is no MLflow model: it has no file MLmodel"):
        PyfuncPredictor.load(tmp_path / "gone", expected_digest="0" * 64, spec=SPEC)


def test_a_version_without_a_recorded_digest_is_not_loaded(tmp_path: Path) -> None:
    folder = save_pyfunc(tmp_path / "model", SHARES, "text")
    with pytest.raises(ArtefactError, match="`mlops register models:/NAME/VERSION` does that"):
        load_predictor(folder, "", "mlflow", SPEC)


def test_what_reading_a_model_leaves_in_its_folder_is_no_change_and_is_never_run(tmp_path: Path) -> None:
    folder = save_pyfunc(tmp_path / "model", SHARES, "text")
    digest = model_digest(folder)
    (folder / "registered_model_meta").write_text("model_name: m")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "planted.cpython-311.pyc").write_bytes(b"planted")
    predictor = PyfuncPredictor.load(folder, expected_digest=digest, spec=SPEC)
    assert predictor.predict(["a"], feature_rows(predictor.feature_names, [{}])).probabilities[0, 0] == pytest.approx(
        1 / 7
    )


def test_the_copy_of_a_killed_process_is_removed_by_the_next_load_and_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_pyfunc(tmp_path / "model", SHARES, "text")
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(copies))
    killed = (
        "import os, sys, pathlib\n"
        "from mlops_assets.resources.mlflow_model import PrivateCopy\n"
        "copy = PrivateCopy(pathlib.Path(sys.argv[1]))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", killed, str(folder)], env={**os.environ, "TMPDIR": str(copies)}, check=False)
    (left,) = copies.iterdir()
    predictor = loaded(folder)
    assert left in copies.iterdir()  # it may be just in the making
    monkeypatch.setattr(mlflow_model, "_YOUNG_SECONDS", 0.0)
    second = loaded(folder)
    assert left not in copies.iterdir()
    assert len(list(copies.iterdir())) == 2
    del predictor, second
    gc.collect()
    assert list(copies.iterdir()) == []


def test_two_models_that_bring_a_module_of_one_name_run_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictors = []
    for label in ("refund", "query"):
        module = tmp_path / label / "brought_along.py"
        module.parent.mkdir()
        module.write_text(f"ANSWER = {label!r}\n")
        monkeypatch.syspath_prepend(module.parent)  # as on its author's machine
        body = "return [brought_along.ANSWER] * len(model_input)"
        folder = save_pyfunc(
            tmp_path / f"model-{label}", body, "text", code_paths=[module], imports="import brought_along"
        )
        monkeypatch.undo()
        del sys.modules["brought_along"]
        predictors.append(loaded(folder))
    assert [labels_of(predictor, ["a"]) for predictor in predictors] == [["refund"], ["query"]]
