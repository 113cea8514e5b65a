"""Imports run one way, and loading the graph stays cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mlops_assets"
PURE = ("data", "drift", "training", "release", "monitoring", "simulation")
FOUNDATION = (
    *("verdict", "storage", "settings", "clock", "spec", "declarations", "f1", "leaks"),
    *("tokens", "addresses", "imports", "ports", "console"),
)
FRAMEWORKS = {"dagster", "dagster_mlflow", "mlflow", "feast", "ray"}
HEAVY = ("torch", "transformers", "ray", "feast", "mlflow", "sklearn", "onnxruntime", "matplotlib", "pandera", "pandas")


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions and under TYPE_CHECKING."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_packages(path: Path) -> set[str]:
    """The parts of mlops_assets that a file imports."""
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("mlops_assets.")}


def files(part: str) -> list[Path]:
    return sorted((PACKAGE / part).rglob("*.py"))


@pytest.mark.parametrize("part", [*PURE, "report", "replay"])
def test_pure_packages_know_no_framework(part: str) -> None:
    for path in files(part):
        assert not {name.split(".")[0] for name in imports_of(path)} & FRAMEWORKS, path


ALLOWED = {
    **{part: set(FOUNDATION) for part in PURE},
    "training": {*FOUNDATION, "data", "training"},
    "report": {*FOUNDATION, *PURE},
    "replay": {*FOUNDATION, "drift", "release", "monitoring"},
    "resources": {*FOUNDATION, *PURE, "resources"},
    "serving": {*FOUNDATION, *PURE, "resources", "serving"},
    "lineage": {*FOUNDATION, *PURE, "report", "resources", "lineage"},
}


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_imports_run_one_way(part: str) -> None:
    for path in files(part):
        strangers = own_packages(path) - ALLOWED[part] - {part}
        assert not strangers, f"{path} imports {strangers}"


@pytest.mark.slow
def test_loading_the_graph_loads_nothing_heavy() -> None:
    code = f"import sys, mlops_assets.definitions; print([m for m in {HEAVY!r} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.strip().splitlines()[-1] == "[]"
