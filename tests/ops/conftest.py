"""A home with ports of its own, and nothing left running in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_assets.ops.processes import Service, ours, stop_all
from mlops_assets.ports import free_port
from mlops_assets.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    ports = {f"{name}_port": free_port() for name in ("dagster", "code", "mlflow", "serve")}
    settings = Settings(home=tmp_path, **ports, _env_file=None)
    (tmp_path / "logs").mkdir()
    try:
        yield settings
    finally:
        stop_all(settings, patience=1)
        assert not list(ours(settings))


def python(name: str, code: str, ready_url: str | None = None) -> Service:
    """A service that is a line of Python."""
    return Service(name, (sys.executable, "-c", code), ready_url, None)
