"""An MLflow model as a folder: which one an address means, and the digest over all of its files.

The digest is recorded when the model is registered and checked on a private copy, which is then the one
that is loaded: nothing that is written to the folder between check and load is ever run. What the files
mean is MLflow's matter.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING

from mlops_assets.resources.mlflow_store import local_path, quiet_mlflow, translated
from mlops_assets.resources.packaging import ARTEFACT_DIGEST_TAG, ArtefactMismatch
from mlops_assets.settings import Settings
from mlops_assets.storage import digest_file, digest_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

MLMODEL = "MLmodel"
COPIES = "mlops-pyfunc-"
# What reading a model leaves in its folder; neither is copied, so neither is ever run.
_TRACES = ("__pycache__", "registered_model_meta")
# A copy that is not held, and is older than it takes to make one and hold it, was left behind.
_YOUNG_SECONDS = 60.0
_VERSION = re.compile(r"models:/(?P<model>[^/]+)/(?P<version>[1-9]\d*)")


class UnknownAddress(LookupError):
    """An address names no model that MLflow keeps; the message says which addresses there are."""


@dataclass(frozen=True)
class LoggedModel:
    """A model that somebody logged with MLflow.

    Attributes:
        location: its folder or object-store prefix.
        run_id: the run that logged it, if any.
        version: its number in the registry, where it was registered as it was logged.
        digest: of its files, where it is recorded for that version already.
    """

    location: str
    run_id: str | None
    version: int | None = None
    digest: str | None = None

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Its files on this machine: where they lie, or fetched for the time being."""
        here = local_path(self.location)
        if here is not None:
            yield here
            return
        from mlflow.artifacts import download_artifacts

        with TemporaryDirectory(prefix="mlops-fetched-") as draft:
            yield Path(download_artifacts(artifact_uri=self.location, dst_path=draft))


def find_model(client: MlflowClient, settings: Settings, model: str, address: str) -> LoggedModel:
    """The model behind ``models:/NAME/VERSION``, ``models:/m-ID`` or ``runs:/RUN/NAME``.

    Raises:
        UnknownAddress: there is none, it is of another registered model, or MLflow 3 did not log it.
        RegistryUnavailable: MLflow cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    try:
        with translated(settings):
            registered = _VERSION.fullmatch(address)
            if registered is None:
                return _by_address(client, settings, address)
            if registered["model"] == model:
                return _by_version(client, model, registered["version"])
    except MlflowException as error:
        known = "models:/NAME/VERSION, models:/m-ID or runs:/RUN/NAME"
        raise UnknownAddress(f"{address} names no model that MLflow keeps ({error}); give {known}") from error
    raise UnknownAddress(f"{address} is a version of another model than {model}")


def _by_version(client: MlflowClient, model: str, version: str) -> LoggedModel:
    entry = client.get_model_version(model, version)
    location = client.get_model_version_download_uri(model, version)
    return LoggedModel(location, entry.run_id or None, int(entry.version), entry.tags.get(ARTEFACT_DIGEST_TAG))


def _by_address(client: MlflowClient, settings: Settings, address: str) -> LoggedModel:
    quiet_mlflow()
    import mlflow
    from mlflow.models import Model

    mlflow.set_tracking_uri(settings.tracking_uri)
    model_id = Model.load(address).model_id
    if not model_id:
        raise UnknownAddress(f"{address} was logged before MLflow 3: log it again")
    logged = client.get_logged_model(model_id)
    return LoggedModel(str(logged.artifact_location), logged.source_run_id or None)


class PrivateCopy:
    """A copy of a model's files that nobody else knows of, without what reading it has left there.

    It lasts as long as the object. A process that is killed leaves its copies behind; whoever makes the next one
    removes them.

    Raises:
        ArtefactMismatch: the folder is gone, or is no MLflow model.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / MLMODEL).is_file():
            raise ArtefactMismatch(f"{folder} is no MLflow model: it has no file {MLMODEL}")
        _remove_abandoned()
        self._draft = TemporaryDirectory(prefix=COPIES)
        self.path = Path(self._draft.name)
        weakref.finalize(self, os.close, _lock(self.path))
        shutil.copytree(folder, self.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_TRACES))

    def digest(self) -> str:
        """SHA-256 over the names and contents of all files."""
        files = (path for path in self.path.rglob("*") if path.is_file())
        return digest_json({path.relative_to(self.path).as_posix(): digest_file(path) for path in files})


def model_digest(folder: Path) -> str:
    """What is recorded of an MLflow model when it is registered.

    Raises:
        ArtefactMismatch: the folder is gone, or is no MLflow model.
    """
    return PrivateCopy(folder).digest()


def verified_copy(folder: Path, expected_digest: str) -> PrivateCopy:
    """A copy of a model whose files are those that were registered.

    Raises:
        ArtefactMismatch: a file was changed, added or taken away; nothing of it has been loaded.
    """
    copy = PrivateCopy(folder)
    found = copy.digest()
    if found != expected_digest:
        raise ArtefactMismatch(
            f"{folder} has digest {found}, not {expected_digest}: a file was changed, added or taken away "
            "since it was registered"
        )
    return copy


def _remove_abandoned() -> None:
    for path in Path(gettempdir()).glob(f"{COPIES}*"):
        with suppress(OSError):  # it is held, another user's, or somebody else is removing it
            held = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                if time.time() - path.stat().st_ctime > _YOUNG_SECONDS:
                    shutil.rmtree(path)
            finally:
                os.close(held)


def _lock(folder: Path, how: int = fcntl.LOCK_SH) -> int:
    """Lock a folder until the descriptor is closed, by us or by the end of the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
