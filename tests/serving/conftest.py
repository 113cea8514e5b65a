"""Homes with a prepared registry: the schema is made once and copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlops_assets.resources.registry import prepare
from mlops_assets.settings import Settings
from tests.serving.world import settings_in


@pytest.fixture(scope="session")
def prepared_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = settings_in(tmp_path_factory.mktemp("prepared"))
    prepare(settings)
    return settings.home / "mlflow"


@pytest.fixture
def settings(tmp_path: Path, prepared_mlflow: Path) -> Settings:
    shutil.copytree(prepared_mlflow, tmp_path / "mlflow")
    return settings_in(tmp_path)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
