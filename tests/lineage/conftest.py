"""A model with a real registry in a home of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.lineage.loop import Loop
from tests.lineage.world import loop_in


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    """A model whose home is empty."""
    return loop_in(tmp_path)


@pytest.fixture
def registered(tmp_path: Path, mlflow_schema: Path) -> Loop:
    """A model with an empty registry."""
    shutil.copytree(mlflow_schema, tmp_path / "mlflow")
    return loop_in(tmp_path)
