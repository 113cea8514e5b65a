"""Packs an exported model folder as an MLflow model, so that anything that speaks MLflow can load it.

Knows the folder's manifest (labels, features, digests) and MLflow's model layout; training and the
registry hand it a folder and get back where it lies.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlops_assets.resources.mlflow_store import quiet_mlflow, translated
from mlops_assets.settings import Settings
from mlops_assets.storage import digest_file, read_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

MANIFEST = "manifest.json"
ARTEFACT_PATH_TAG = "artefact_path"
ARTEFACT_DIGEST_TAG = "artefact_digest"
ARTEFACT_FORMAT_TAG = "artefact_format"
ArtefactFormat = Literal["export", "mlflow"]
"""What a version's files are: our own export (the fast path), or an MLflow model of any flavour."""
_RUNTIME_MODULES = ("__init__.py", "storage.py", "training/__init__.py", "training/artefact.py")
_RUNTIME_PACKAGES = ("mlflow", "numpy", "pandas", "onnxruntime", "tokenizers")


class ArtefactMismatch(ValueError):
    """A model folder is not the one it is said to be; the message says what it is instead."""


@dataclass(frozen=True)
class PackedModel:
    """A model in MLflow: `location` is the MLflow model's folder, `artefact_path` the export within it."""

    uri: str
    location: str
    artefact_path: str
    artefact_digest: str


def check_digest(folder: Path, expected: str) -> None:
    """Make sure that `folder` holds the export with this digest (SHA-256 of its manifest).

    Raises:
        ArtefactMismatch: there is no manifest, or it is another one.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise ArtefactMismatch(f"{folder} is not an exported model: it has no {MANIFEST}")
    found = digest_file(manifest)
    if found != expected:
        raise ArtefactMismatch(f"{folder} has digest {found}, expected {expected}")


def log_exported(
    client: MlflowClient, settings: Settings, *, run_id: str, folder: Path, digest: str, name: str = "model"
) -> PackedModel:
    """Log an exported model folder under a run, with signature and requirements.

    Raises:
        ArtefactMismatch: `folder` is not the export with `digest`.
        RegistryUnavailable: MLflow cannot be reached.
    """
    check_digest(folder, digest)
    quiet_mlflow()
    import mlflow
    from mlflow.models import Model

    with translated(settings), _without_hints(), _runtime_code() as code:
        mlflow.set_tracking_uri(settings.tracking_uri)
        # Made by us, in the run's experiment: Model.log would put it into the default one, beside its artefacts.
        run = client.get_run(run_id)
        logged = client.create_logged_model(
            run.info.experiment_id, name=name, source_run_id=run_id, params=run.data.params
        )
        Model.log(
            artifact_path=None,
            model_id=logged.model_id,
            name=name,
            flavor=mlflow.pyfunc,
            run_id=run_id,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"artefact": str(folder)},
            model_config={"digest": digest},
            code_paths=[str(code)],
            pip_requirements=[f"{package}=={installed_version(package)}" for package in _RUNTIME_PACKAGES],
            signature=signature(read_json(folder / MANIFEST)),
            metadata={ARTEFACT_DIGEST_TAG: digest, "python": platform.python_version()},
        )
        packed = PackedModel(
            uri=f"models:/{logged.model_id}",
            location=str(logged.artifact_location),
            artefact_path=f"artifacts/{folder.name}",
            artefact_digest=digest,
        )
        tags = {ARTEFACT_PATH_TAG: packed.artefact_path, ARTEFACT_DIGEST_TAG: digest}
        client.set_logged_model_tags(logged.model_id, tags)
    return packed


def packed_model(client: MlflowClient, settings: Settings, uri: str) -> PackedModel:
    """The packed model behind a ``models:/m-...`` address that `log_exported` gave."""
    with translated(settings):
        logged = client.get_logged_model(uri.rpartition("/")[2])
    return PackedModel(
        uri=uri,
        location=str(logged.artifact_location),
        artefact_path=logged.tags[ARTEFACT_PATH_TAG],
        artefact_digest=logged.tags[ARTEFACT_DIGEST_TAG],
    )


def signature(manifest: dict[str, Any]) -> ModelSignature:
    """`text`, and each feature as an optional number; out come label, confidence and probabilities."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    features = manifest.get("features", {}).get("names", [])
    inputs = [ColSpec(DataType.string, "text")]
    inputs += [ColSpec(DataType.double, name, required=False) for name in features]
    outputs = [ColSpec(DataType.string, "label"), ColSpec(DataType.float, "confidence")]
    outputs += [ColSpec(DataType.float, f"p_{label}") for label in manifest.get("labels", [])]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


@contextmanager
def _runtime_code() -> Iterator[Path]:
    """Just the modules that run an exported model, so that it loads where this package is not installed."""
    source = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory(prefix="mlops-model-code-") as draft:
        for module in _RUNTIME_MODULES:
            target = Path(draft) / source.name / module
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / module, target)
        yield Path(draft) / source.name


@contextmanager
def _without_hints() -> Iterator[None]:
    """Silence MLflow's advice to infer a signature: ours is stated, from the manifest."""
    with warnings.catch_warnings():
        for advice in ("type hint", "input example"):
            warnings.filterwarnings("ignore", message=f"(?is).*{advice}.*")
        yield
