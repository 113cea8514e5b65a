"""What is exported is what was trained; anything else never appears under its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mlops_assets.training.artefact import Predictor, artefact_digest
from mlops_assets.training.export import ExportError, derive_artefact, export_model, largest_difference
from tests.training import tiny
from tests.training.conftest import SAMPLES


@pytest.mark.slow
def test_the_exported_network_answers_as_the_trained_one(encoder_folder: Path, exported: Path) -> None:
    predictor = Predictor.load(exported, expected_digest=artefact_digest(exported))
    longer = [*SAMPLES, "where is my order i want a refund i want a refund thanks"]
    assert largest_difference(tiny.classifier(encoder_folder), predictor, longer) < 1e-5


def test_both_outputs_are_in_the_file(encoder_folder: Path, exported: Path) -> None:
    network = tiny.classifier(encoder_folder)
    predictor = Predictor.load(exported, expected_digest=None)
    ids, mask = map(torch.from_numpy, predictor.tokenize(["hello"]))
    with torch.inference_mode():
        _, embedding = network(ids, mask, torch.zeros(1, 2))
    answer = predictor.predict(["hello"], np.zeros((1, 2), np.float32))
    np.testing.assert_allclose(answer.embeddings, embedding.numpy(), atol=1e-6)


def test_a_network_that_changes_on_export_is_refused_and_leaves_nothing(encoder_folder: Path, tmp_path: Path) -> None:
    class Restless(torch.nn.Module):
        """Adds its batch size to one logit, which tracing freezes at the size it was traced with."""

        def __init__(self, head: torch.nn.Module) -> None:
            super().__init__()
            self.head = head

        def forward(self, embedding: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
            return self.head(embedding, features) + float(len(embedding)) * torch.tensor([1.0, 0.0, 0.0])

    network = tiny.classifier(encoder_folder)
    network.head = Restless(network.head)
    with pytest.raises(ExportError, match="differ by"):
        export_model(network, encoder_folder / "tokenizer.json", tiny.manifest(), tmp_path / "model", SAMPLES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_second_export_replaces_the_first_with_the_same_digest(
    encoder_folder: Path, exported: Path, tmp_path: Path
) -> None:
    digests = {
        export_model(
            tiny.classifier(encoder_folder), encoder_folder / "tokenizer.json", tiny.manifest(), tmp_path / "m", SAMPLES
        )
        for _ in range(2)
    }
    assert digests == {artefact_digest(exported)}
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_derived_model_differs_in_its_manifest_alone(exported: Path, tmp_path: Path) -> None:
    wrong = tiny.LABELS[::-1]
    digest = derive_artefact(exported, tmp_path / "bad", {"labels": wrong})
    assert digest != artefact_digest(exported)
    assert Predictor.load(tmp_path / "bad", expected_digest=digest).labels == wrong
    assert (tmp_path / "bad" / "model.onnx").read_bytes() == (exported / "model.onnx").read_bytes()
