from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mlops_assets.training.export import export_model
from tests.training import tiny

SAMPLES = ("hello", "where is my order", "i want a refund thanks")


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> Path:
    """One exported miniature model; tests that damage it work on a copy."""
    folder = tmp_path_factory.mktemp("export") / "model"
    export_model(
        tiny.classifier(encoder_folder), encoder_folder / "tokenizer.json", tiny.manifest(), folder, samples=SAMPLES
    )
    return folder


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tests share their cores with servers under test, where torch's spinning threads cost more than they give."""
    torch.set_num_threads(1)
