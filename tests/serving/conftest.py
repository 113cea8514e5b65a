"""Homes with a prepared registry: the schema is made once and copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlops_assets.settings import Settings
from tests.serving.world import settings_in


@pytest.fixture
def settings(tmp_path: Path, mlflow_schema: Path) -> Settings:
    shutil.copytree(mlflow_schema, tmp_path / "mlflow")
    return settings_in(tmp_path)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
