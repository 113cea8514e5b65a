"""The connection to MLflow that registry and tracking share: schema, experiments, errors, one lock.

Knows how to create and open the store that the settings name and how its failures read. What is kept
in it is the business of `registry` and `tracking`. MLflow is imported on first use, never on import.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from mlops_assets.addresses import without_secrets
from mlops_assets.settings import Settings
from mlops_assets.storage import locked

if TYPE_CHECKING:
    from mlflow import MlflowClient

# For those who ask again anyway, as variables of their process. MLflow's own patience with a server that is away is
# four and a half minutes, in which whoever waits takes a thread from the others.
SHORT_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}

_ABSENT = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})
_REFUSED = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS"})
_SQLITE = "sqlite:///"


class RegistryUnavailable(RuntimeError):
    """MLflow cannot be reached or its database stayed locked. Nothing was changed; try again."""


class RegistryNotPrepared(RegistryUnavailable):
    """The MLflow database does not exist yet; `prepare` (part of ``mlops up``) creates it."""


def prepare(settings: Settings) -> None:
    """Create MLflow's schema (about 7 s the first time, then a few ms) and switch SQLite to WAL.

    In WAL mode a poll of the registry never waits for a writer. Safe to repeat and to run from
    several processes at once.

    Raises:
        RegistryUnavailable: the store cannot be reached or created.
    """
    with exclusive(settings), translated(settings):
        path = _sqlite_path(settings)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        _open(settings).search_experiments(max_results=1)
        if path is not None:
            with closing(sqlite3.connect(path, timeout=20)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")


def connect(settings: Settings) -> MlflowClient:
    """A client of the prepared store.

    Raises:
        RegistryNotPrepared: the SQLite file is absent: MLflow would create the schema here and now,
            in every process that comes first.
    """
    path = _sqlite_path(settings)
    if path is not None and not path.exists():
        raise RegistryNotPrepared(f"{path} does not exist: nothing was registered yet; run `mlops up` or `mlops demo`")
    with translated(settings):
        return _open(settings)


def experiment_id(client: MlflowClient, settings: Settings, model: str) -> str:
    """The experiment of a model, created on first use; artefacts under `settings.artifact_root`."""
    found = client.get_experiment_by_name(model)
    if found is not None:
        return str(found.experiment_id)
    with exclusive(settings):
        found = client.get_experiment_by_name(model)
        if found is not None:
            return str(found.experiment_id)
        return str(client.create_experiment(model, artifact_location=_artifact_location(settings, model)))


def exclusive(settings: Settings) -> AbstractContextManager[None]:
    """Hold the lock that makes look-then-write on the store one step, across processes of this machine."""
    return locked(settings.home.resolve() / "mlflow" / ".lock")


@contextmanager
def translated(settings: Settings) -> Iterator[None]:
    """Turn MLflow's failures to reach its store into `RegistryUnavailable`; let refusals through.

    Neither tells the password that the store's address may carry, which MLflow repeats.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        error.message = without_secrets(error.message)
        error.args = (error.message,)  # a traceback shows it too, as the cause
        if error.error_code in _ABSENT | _REFUSED:
            raise
        raise _unavailable(settings, error) from error
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise _unavailable(settings, error) from error


def is_absent(error: Any) -> bool:
    """Whether an MlflowException says that the thing asked for is not there."""
    return error.error_code in _ABSENT or (error.error_code == "INVALID_PARAMETER_VALUE" and "not found" in str(error))


def local_path(location: str) -> Path | None:
    """The folder behind an artefact location, or None when it is not on this machine.

    >>> local_path("file:///srv/models/1").as_posix(), local_path("/srv/models/1").as_posix()
    ('/srv/models/1', '/srv/models/1')
    >>> local_path("s3://bucket/models/1") is None
    True
    """
    parsed = urlparse(location)
    if parsed.scheme == "":
        return Path(location)
    if parsed.scheme == "file":
        return Path(url2pathname(parsed.path))
    return None


def quiet_mlflow() -> None:
    """Keep MLflow's usage reports, progress bars and migration chatter out of our processes."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)


def _unavailable(settings: Settings, error: Exception) -> RegistryUnavailable:
    return RegistryUnavailable(without_secrets(f"MLflow at {settings.tracking_uri}: {error}"))


def _open(settings: Settings) -> MlflowClient:
    quiet_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=settings.tracking_uri, registry_uri=settings.tracking_uri)


def _sqlite_path(settings: Settings) -> Path | None:
    uri = settings.tracking_uri
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]) if uri.startswith(_SQLITE) else None


def _artifact_location(settings: Settings, model: str) -> str | None:
    if settings.mlflow_artifact_uri:
        return f"{settings.mlflow_artifact_uri.rstrip('/')}/{model}"
    remote = urlparse(settings.tracking_uri).scheme in {"http", "https"}
    return None if remote else str(settings.artifact_root / model)
