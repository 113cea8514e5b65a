"""An exported folder is checked before it is loaded, and answers alike however messages are batched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mlops_assets.training.artefact import ArtefactError, Predictor, artefact_digest, feature_rows, softmax
from mlops_assets.training.export import derive_artefact
from tests.training import tiny

TEXTS = ["hello", "where is my order", "i want a refund for my broken order thanks", "bye bye"] * 10


def features(n: int) -> np.ndarray:
    return np.tile(np.array([[2.0, 30.0]], dtype=np.float32), (n, 1))


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "model"))


@pytest.mark.slow
def test_the_manifest_names_labels_and_features_in_the_order_of_the_network(exported: Path) -> None:
    predictor = Predictor.load(exported, expected_digest=artefact_digest(exported))
    assert predictor.labels == tiny.LABELS
    assert predictor.feature_names == ("orders_90d", "spend_90d")
    assert predictor.feature_defaults == tiny.DEFAULTS


@pytest.mark.slow
def test_a_batch_answers_as_its_messages_do_one_by_one(exported: Path) -> None:
    predictor = Predictor.load(exported, expected_digest=None)
    together = predictor.predict(TEXTS, features(len(TEXTS)))
    alone = [predictor.predict([text], features(1)) for text in TEXTS]
    np.testing.assert_allclose(together.probabilities, np.vstack([p.probabilities for p in alone]), atol=1e-5)
    np.testing.assert_allclose(together.embeddings, np.vstack([p.embeddings for p in alone]), atol=1e-5)
    np.testing.assert_allclose(together.probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert together.embeddings.shape == (len(TEXTS), tiny.WIDTH)


def test_no_messages_give_no_answers_of_the_right_shape(exported: Path) -> None:
    answer = Predictor.load(exported, expected_digest=None).predict([], features(0))
    assert answer.probabilities.shape == (0, len(tiny.LABELS))
    assert answer.embeddings.shape == (0, tiny.WIDTH)


def test_a_feature_that_could_not_be_had_takes_its_default(exported: Path) -> None:
    predictor = Predictor.load(exported, expected_digest=None)
    missing = feature_rows(predictor.feature_names, [{}, {"orders_90d": None, "spend_90d": float("nan")}])
    defaults = feature_rows(predictor.feature_names, [tiny.DEFAULTS, tiny.DEFAULTS])
    answers = [predictor.predict(["hello", "bye"], rows).probabilities for rows in (missing, defaults)]
    np.testing.assert_array_equal(*answers)


def test_features_of_another_shape_are_refused_by_name(exported: Path) -> None:
    with pytest.raises(ValueError, match="orders_90d, spend_90d"):
        Predictor.load(exported, expected_digest=None).predict(["hello"], np.zeros((1, 5), np.float32))


def test_a_text_longer_than_max_tokens_is_cut(exported: Path) -> None:
    ids, _ = Predictor.load(exported, expected_digest=None).tokenize(["hello " * 10_000])
    assert ids.shape == (1, 16)


def test_temperature_softens_without_changing_the_winner(exported: Path, tmp_path: Path) -> None:
    derive_artefact(exported, tmp_path / "soft", {"temperature": 5.0})
    sharp, soft = (
        Predictor.load(f, expected_digest=None).predict(TEXTS, features(len(TEXTS))).probabilities
        for f in (exported, tmp_path / "soft")
    )
    assert (sharp.argmax(axis=1) == soft.argmax(axis=1)).all()
    assert (soft.max(axis=1) < sharp.max(axis=1)).all()


def test_softmax_survives_large_logits() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e4, 0.0]], np.float32), 1.0), [[1.0, 0.0]])


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_changed_file_is_not_loaded(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(ArtefactError, match=f"{name} does not match the digest"):
        Predictor.load(folder, expected_digest=None)


def test_a_swapped_manifest_is_noticed_by_the_digest_the_registry_recorded(folder: Path) -> None:
    recorded = artefact_digest(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"labels": manifest["labels"][::-1]}))
    with pytest.raises(ArtefactError, match="changed or swapped"):
        Predictor.load(folder, expected_digest=recorded)


@pytest.mark.parametrize("damage", [{"format": 99}, {"labels": None}, {"temperature": 0}, {"features": {}}])
def test_a_senseless_manifest_is_an_artefact_error(folder: Path, damage: dict[str, object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | damage))
    with pytest.raises(ArtefactError, match="no usable manifest"):
        Predictor.load(folder, expected_digest=None)


def test_a_missing_folder_is_an_artefact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="export the model again"):
        Predictor.load(tmp_path / "nowhere", expected_digest=None)
