"""A whole platform in a temporary home: free ports, real processes, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_assets.ops.processes import ours, stop_all
from mlops_assets.ports import free_port
from mlops_assets.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[tuple[Settings, dict[str, str]]]:
    """Settings of a fresh home, and the environment that gives them to a process. Stops what is left at the end."""
    dagster, code, mlflow, serve = (free_port() for _ in range(4))
    settings = Settings(
        home=tmp_path / "var", dagster_port=dagster, code_port=code, mlflow_port=mlflow, serve_port=serve
    )
    environment = {
        **os.environ,
        "MLOPS_HOME": str(settings.home),
        "MLOPS_DAGSTER_PORT": str(dagster),
        "MLOPS_CODE_PORT": str(code),
        "MLOPS_MLFLOW_PORT": str(mlflow),
        "MLOPS_SERVE_PORT": str(serve),
    }
    try:
        yield settings, environment
    finally:
        stop_all(settings)
        assert not list(ours(settings))


def start_demo(environment: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    """`mlops demo`, as a user starts it."""
    return subprocess.Popen([sys.executable, "-m", "mlops_assets.cli", "demo", *arguments], env=environment, cwd=ROOT)
