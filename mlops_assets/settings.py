"""One typed object for everything that differs between a laptop and production.

Each field is read from the environment (``MLOPS_*``) or a ``.env`` file and has an embedded default,
so that a fresh clone runs on SQLite, local files and a local Ray. What a *model* needs is not here:
that is its YAML (`mlops_assets.spec`).
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, SettingsConfigDict

from mlops_assets.addresses import without_secrets
from mlops_assets.tokens import hash_of, is_hash, new_token

PROJECT_ROOT = Path(__file__).resolve().parent.parent
MARK = "MLOPS_PLATFORM"  # no setting: says of a process to which home it belongs


def _hashed(value: str) -> str:
    if not is_hash(value):
        raise ValueError("must be a token's hash, sha256:<64 hex digits>, never the token: `mlops token` makes both")
    return value


def _named(value: object) -> object:
    if value == "":  # which as a path is the current folder
        raise ValueError("is empty: name a folder, or unset it for the default")
    return value


TokenHash = Annotated[str, AfterValidator(_hashed)]
Folder = Annotated[Path, BeforeValidator(_named)]


class Settings(BaseSettings):
    """Where things live and listen. Environment names are the field names with ``MLOPS_`` before."""

    # A token where its hash belongs is refused, and an error that showed it would put it into a log.
    model_config = SettingsConfigDict(
        env_prefix="MLOPS_", env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    home: Folder = Field(PROJECT_ROOT / "var", description="Folder of all state; `mlops down --wipe` removes it.")
    models_dir: Folder = Field(
        PROJECT_ROOT / "mlops_assets" / "models", description="One folder per model, each with a defs.yaml."
    )
    feature_repo: Folder = Field(PROJECT_ROOT / "feature_repo", description="The Feast repository.")
    host: str = Field("127.0.0.1", description="Address that every server binds to.")
    dagster_port: int = Field(3000, ge=1, le=65535, description="Dagster webserver.")
    code_port: int = Field(4000, ge=1, le=65535, description="Dagster's code server; for its own processes only.")
    mlflow_port: int = Field(5000, ge=1, le=65535, description="MLflow UI.")
    serve_port: int = Field(8000, ge=1, le=65535, description="Prediction endpoint (Ray Serve).")
    mlflow_tracking_uri: str = Field("", description="MLflow tracking and registry; empty: SQLite under `home`.")
    mlflow_artifact_uri: str = Field(
        "", description="Where MLflow keeps artefacts (s3://...); empty: under `home`, or as a tracking server says."
    )
    ray_address: str = Field("", description="Ray cluster to join; empty: start a local one.")
    ingress_replicas: int = Field(
        2, ge=1, description="Replicas of the serving ingress, 0.4 GB each; with one alone its death is noticed."
    )
    admin_token: TokenHash | None = Field(
        None, description="Hash of a token that opens the admin routes, beside the home's own in `home`/admin_token."
    )
    predict_token: TokenHash | None = Field(
        None, description="Hash of the token that predict and feedback need when this is set; an admin's does too."
    )
    token: SecretStr | None = Field(
        None, description="The caller's own token, for the commands; unset: the home's. No process of ours is given it."
    )
    rate_limit: float = Field(
        0.0,
        ge=0,
        description="Requests a second that one client address may send, over 10 s, but for an admin's; 0: no limit.",
    )
    log_retention_days: int | None = Field(
        None,
        ge=14,
        description="Predictions, labels and copies older than this go from the endpoint's log, once they were read; "
        "labelled days stay. At least 14: so long a release can be explained and replayed. Unset: all are kept.",
    )
    replay_clock: bool = Field(False, description="Accept event times and clock moves from callers (demo, tests).")
    canary_time_scale: float = Field(
        1.0, gt=0, le=1, description="Shortens the minutes of every canary policy (the demo uses 1/60)."
    )
    notify_urls: list[str] = Field(default_factory=list, description="Apprise URLs for alerts; the log gets them too.")

    @cached_property
    def tracking_uri(self) -> str:
        return self.mlflow_tracking_uri or f"sqlite:///{self.home.resolve() / 'mlflow' / 'mlflow.db'}"

    @property
    def artifact_root(self) -> Path:
        return self.home.resolve() / "mlflow" / "artifacts"

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}:{self.serve_port}"

    @property
    def dagster_url(self) -> str:
        return f"http://{self.host}:{self.dagster_port}"

    @property
    def mlflow_url(self) -> str:
        """Where MLflow's pages are: the tracking server that is named, or our own. People read it: no password."""
        own = f"http://{self.host}:{self.mlflow_port}"
        return without_secrets(self.tracking_uri).rstrip("/") if self.tracking_uri.startswith("http") else own

    def as_environment(self) -> dict[str, str]:
        """These settings as variables (``MLOPS_*``), for processes in other working directories; without the token."""
        values = {name: getattr(self, name) for name in type(self).model_fields if name != "token"}
        return {f"MLOPS_{name.upper()}": _as_text(value) for name, value in values.items() if value is not None}

    @property
    def dagster_home(self) -> Path:
        """What Dagster knows as ``DAGSTER_HOME``."""
        return self.home.resolve() / "dagster"

    @property
    def customer_events(self) -> Path:
        """The inbox of customer events; one for all models, since events and features describe a customer."""
        return self.home / "incoming" / "customer_events"

    @property
    def quarantine(self) -> Path:
        """Customer events that are bad: the rows by file under `customer_events`, unreadable files under `files`."""
        return self.home / "quarantine"

    def model_home(self, model: str) -> ModelHome:
        return ModelHome(self.home.resolve() / "models" / model)

    def bearer(self) -> str:
        """The token that this process shows the endpoint: the caller's own, else the home's."""
        return self.token.get_secret_value() if self.token else self.admin_secret()

    def admin_secret(self) -> str:
        """The home's own admin token, which the platform calls itself with: made on first use (file mode 600)."""
        path = self.home / "admin_token"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _create_once(path, new_token())
        return path.read_text()

    def admin_hashes(self) -> tuple[str, ...]:
        """Hashes of the tokens that open the admin routes: the home's own, and the one that is set."""
        return tuple(filter(None, (hash_of(self.admin_secret()), self.admin_token)))


class UnknownSetting(ValueError):
    """A variable has the name of no setting; the message says which setting's name is nearest."""


def require_known_names() -> None:
    """Check every ``MLOPS_*`` of the environment and of ``.env``, as a misspelt one would be ignored.

    Raises:
        UnknownSetting: with one line per variable that no setting has.
    """
    given = {*EnvSettingsSource(Settings).env_vars, *DotEnvSettingsSource(Settings).env_vars} - {MARK.lower()}
    names = sorted(name.removeprefix("mlops_") for name in given if name.startswith("mlops_"))
    faults = [_no_setting(name) for name in names if name not in Settings.model_fields]
    if faults:
        raise UnknownSetting("\n".join(faults))


def _no_setting(name: str) -> str:
    near = get_close_matches(name, Settings.model_fields, n=1)
    hint = f"did you mean MLOPS_{near[0].upper()}?" if near else "unset it"
    return f"MLOPS_{name.upper()} is no setting (all are in mlops_assets/settings.py): {hint}"


class ModelHome:
    """The folders of one model's state; nothing is created by looking."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"  # messages/: files that wait to be ingested
        self.validated = root / "validated"  # one parquet per day
        self.quarantine = root / "quarantine"  # bad rows (one parquet per day) and unreadable files
        self.snapshots = root / "snapshots"  # immutable, by content digest
        self.embeddings = root / "embeddings"  # cache, by encoder and content digest
        self.exports = root / "exports"  # what trainings made, by run; goes after some days
        self.candidates = root / "candidates"  # what was put before the gate, by digest; goes after some days
        self.predictions = root / "predictions"  # the endpoint's append-only log
        self.feedback = root / "feedback"  # labels as they came, append-only
        self.shadow = root / "shadow"  # what canaries said to copies of requests, append-only
        self.labelled = root / "labelled"  # predictions joined with labels, one parquet per day
        self.windows = root / "windows"  # drift and quality results, one JSON per day and kind
        self.evidence = root / "evidence"  # the JSON document behind each decision
        self.rollout = root / "rollout"  # the guard's durable state
        self.reports = root / "reports"  # HTML pages for people; written again at any time


def _as_text(value: object) -> str:
    if isinstance(value, Path):
        return str(value.resolve())
    return value if isinstance(value, str) else json.dumps(value)


def _create_once(path: Path, secret: str) -> None:
    """Create `path` whole, for its owner only; where another process was first, its content stays."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret)
    with suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
