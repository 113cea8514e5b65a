"""The guard's process keeps what a release rests on without the libraries that MLflow loads for tables alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mlops_assets.resources.registry import Registry
from mlops_assets.settings import Settings
from tests.serving.factories import MODEL, register, write_artefact

pytestmark = pytest.mark.slow  # MLflow
GUARD = f"""
import sys
from mlops_assets.serving.worker import import_mlflow, import_serve
import_serve(), import_mlflow()
from mlops_assets.resources.registry import Registry
from mlops_assets.settings import Settings
registry = Registry(Settings())
version = registry.by_alias("{MODEL}", "production").version
registry.attach_evidence("{MODEL}", version, "rollout", {{"verdict": "pass"}})
print(registry.evidence("{MODEL}", version)["rollout"]["verdict"], *sys.modules)
"""


def test_the_guard_follows_the_registry_and_keeps_evidence_without_loading_what_is_for_tables(
    settings: Settings,
) -> None:
    folder = settings.home / "artefact"
    version = register(Registry(settings), folder, write_artefact(folder, "refund"), alias="production").version
    environment = os.environ | {"MLOPS_HOME": str(settings.home)}
    guard = subprocess.run([sys.executable, "-c", GUARD], env=environment, capture_output=True, text=True, check=True)
    verdict, *loaded = guard.stdout.split()
    assert verdict == Registry(settings).evidence(MODEL, version)["rollout"]["verdict"] == "pass"
    assert not {"pandas", "polars"} & set(loaded)
