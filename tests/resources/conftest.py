"""A prepared store per test, and what to put into it."""

import shutil
from pathlib import Path

import pytest

from mlops_assets.resources.registry import Registry
from mlops_assets.settings import Settings
from mlops_assets.storage import digest_file, write_json


@pytest.fixture
def settings(tmp_path: Path, mlflow_schema: Path) -> Settings:
    home = tmp_path / "home"
    shutil.copytree(mlflow_schema, home / "mlflow")
    return Settings(home=home, _env_file=None)


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry(settings)


class Exporter:
    """Writes folders in the layout of an exported model; the registry looks at no more than the manifest."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def export(self, temperature: float = 1.0) -> tuple[Path, str]:
        folder = self.root / f"export-{temperature}"
        write_json(
            folder / "manifest.json",
            {
                "format": 1,
                "labels": ["query", "refund"],
                "features": {"names": ["orders_90d"], "defaults": {"orders_90d": 0.0}},
                "temperature": temperature,
            },
        )
        (folder / "model.onnx").write_bytes(b"weights")
        return folder, digest_file(folder / "manifest.json")


@pytest.fixture
def exporter(tmp_path: Path) -> Exporter:
    return Exporter(tmp_path / "exports")
