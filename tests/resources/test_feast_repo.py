"""`feature_repo/` as Feast's own command sees it, in a fresh clone without anything set."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_assets.settings import PROJECT_ROOT

pytestmark = pytest.mark.slow


def feast(clone: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "MLOPS_HOME"} | variables
    return subprocess.run(
        [str(Path(sys.executable).with_name("feast")), *arguments],
        cwd=clone / "feature_repo",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    shutil.copytree(
        PROJECT_ROOT / "feature_repo", tmp_path / "feature_repo", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path


def test_feast_apply_works_on_a_fresh_clone(clone: Path) -> None:
    applied = feast(clone, "apply")
    assert applied.returncode == 0, applied.stderr
    assert "could not validate" not in applied.stderr.lower()
    names = {path.name for path in (clone / "var" / "feast").iterdir()}
    assert {"registry.db", "online.db", "customer_profile.parquet"} <= names


def test_another_home_is_never_mixed_with_the_default_one(clone: Path, tmp_path: Path) -> None:
    home = tmp_path / "elsewhere"
    refused = feast(clone, "apply", MLOPS_HOME=str(home))
    assert refused.returncode != 0
    assert f"feast -f {home / 'feast' / 'feature_store.yaml'}" in refused.stderr
    relocated = feast(clone, "-f", str(home / "feast" / "feature_store.yaml"), "apply", MLOPS_HOME=str(home))
    assert relocated.returncode == 0, relocated.stderr
    assert (home / "feast" / "registry.db").exists()
    assert not (clone / "var").exists()


def test_an_empty_home_is_refused_as_the_platform_does(clone: Path) -> None:
    refused = feast(clone, "apply", MLOPS_HOME="")
    assert refused.returncode != 0
    assert "MLOPS_HOME is empty: name a folder, or unset it for the default" in refused.stderr
    assert not (clone / "var").exists()
    assert not (clone / "feature_repo" / "feast").exists()
