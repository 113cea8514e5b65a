"""The door to the model registry: versions, their aliases, and the evidence behind every move.

The registry is the truth about releases, so an alias moves only from where it was expected to be and
only with evidence attached. Kept in MLflow; which version deserves which alias is decided elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mlops_assets.resources.mlflow_model import LoggedModel, UnknownAddress, find_model
from mlops_assets.resources.mlflow_store import (
    RegistryNotPrepared,
    RegistryUnavailable,
    connect,
    exclusive,
    experiment_id,
    is_absent,
    local_path,
    prepare,
    translated,
)
from mlops_assets.resources.packaging import (
    ARTEFACT_DIGEST_TAG,
    ARTEFACT_FORMAT_TAG,
    ARTEFACT_PATH_TAG,
    ArtefactFormat,
    ArtefactMismatch,
    PackedModel,
    check_digest,
    log_exported,
    packed_model,
)
from mlops_assets.settings import Settings
from mlops_assets.storage import digest_file, locked, to_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = [
    "OFFERED_TAG",
    "SINCE_TAG",
    "AliasConflict",
    "ArtefactMismatch",
    "EvidenceCorrupt",
    "MissingEvidence",
    "Registry",
    "RegistryNotPrepared",
    "RegistryUnavailable",
    "UnknownAddress",
    "UnknownVersion",
    "Version",
    "prepare",
]

OFFERED_TAG = "offered_again"
"""How often a person has offered a version as candidate again: each time, its release has new runs."""
SINCE_TAG = "production_since"
"""Set right before a version gets the alias production; a version without it never was there by a release."""
_EVIDENCE_TAG = "evidence."
_EVIDENCE_RUN_TAG = "evidence_run"
_LOCATION_TAG = "artefact_location"
_PAGE = 200


class UnknownVersion(LookupError):
    """The registry has no such model or version."""


class AliasConflict(RuntimeError):
    """An alias is not where the caller thought: somebody else moved it. Look again, then decide again."""


class MissingEvidence(RuntimeError):
    """A version lacks the evidence that would let its alias move; attach it first."""


class EvidenceCorrupt(RuntimeError):
    """A stored evidence document is not the one whose digest was recorded."""


@dataclass(frozen=True)
class Version:
    """One registered version.

    Attributes:
        artefact: its files on this machine: the exported model's folder, or that of an MLflow model.
        artefact_digest: of these files at registration; empty where nobody recorded it, and then nobody loads them.
    """

    model: str
    version: int
    run_id: str
    artefact: Path
    artefact_digest: str
    description: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    created_at: datetime

    @property
    def sent_back(self) -> bool:
        """Whether its rollout ended, and not with it in production."""
        return self.tags.get("rollout") in ("failed", "inconclusive")

    @property
    def in_use(self) -> bool:
        """Whether customers are, or are to be, answered by it."""
        return not {"production", "canary"}.isdisjoint(self.aliases)

    @property
    def taken_up(self) -> bool:
        """Whether its rollout began or ended, or a person put it into use."""
        return self.in_use or "rollout" in self.tags

    @property
    def production_since(self) -> datetime:
        """When it came into production last; where a person gave it the alias by hand, when it was registered."""
        since = self.tags.get(SINCE_TAG)
        return datetime.fromisoformat(since) if since else self.created_at

    @property
    def trained_until(self) -> datetime:
        """No later row was learned; where nobody recorded it, until it was registered."""
        until = self.tags.get("trained_until")
        return datetime.fromisoformat(until) if until else self.created_at

    @property
    def artefact_format(self) -> ArtefactFormat:
        """What the files are."""
        return "mlflow" if self.tags.get(ARTEFACT_FORMAT_TAG) == "mlflow" else "export"


class Registry:
    """Versions of all models, in the MLflow that the settings name. Polling `by_alias` costs about 3 ms."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def versions(self, model: str) -> list[Version]:
        """All versions of a model, newest first; none for a model that was never registered."""
        from mlflow.exceptions import MlflowException

        try:
            with translated(self.settings):
                holders = self._client.get_registered_model(model).aliases
                entries = self._entries(model)
        except MlflowException as error:
            if is_absent(error):
                return []
            raise
        return [
            replace(version, aliases=tuple(a for a, holder in holders.items() if int(holder) == version.version))
            for version in sorted(map(self._version, entries), key=lambda v: v.version, reverse=True)
        ]

    def get(self, model: str, version: int) -> Version:
        """One version, its artefact on this machine.

        Raises:
            UnknownVersion: there is none.
            RegistryUnavailable: the store cannot be reached.
        """
        with self._known(model, version):
            return self._fetched(self._client.get_model_version(model, str(version)))

    def by_alias(self, model: str, alias: str) -> Version | None:
        """The version that holds an alias, or None. Cheap enough to ask every second.

        Raises:
            RegistryUnavailable: the store cannot be reached.
        """
        from mlflow.exceptions import MlflowException

        try:
            with translated(self.settings):
                entry = self._client.get_model_version_by_alias(model, alias)
        except MlflowException as error:
            if is_absent(error):
                return None
            raise
        return self._fetched(entry)

    def production(self, model: str) -> Version | None:
        """The version in production; None before the first one was promoted.

        Raises:
            AliasConflict: there was one, and its alias is gone: a slip of somebody's hand, and no first release.
            RegistryUnavailable: the store cannot be reached.
        """
        holder = self.by_alias(model, "production")
        if holder is None:
            # The tag comes before the alias: a candidate that has it already is a promotion that was cut short.
            served = [v for v in self.versions(model) if SINCE_TAG in v.tags and "candidate" not in v.aliases]
            if served:
                last = max(served, key=lambda version: version.production_since)
                raise AliasConflict(
                    f"no version of {model} has the alias production any more, which version {last.version} had last: "
                    "give it back in MLflow, and releases and retrains go on"
                )
        return holder

    def register(
        self,
        model: str,
        run_id: str | None,
        artefact_path: Path | str,
        artefact_digest: str,
        description: str,
        tags: Mapping[str, str],
    ) -> Version:
        """Register an exported model; repeated for the same run and digest it returns the version there is.

        `artefact_path` is the exported folder, or the ``models:/m-...`` address under which the run
        already logged it. Without a `run_id` (a model from elsewhere) a run named ``import`` stands in.

        Raises:
            ArtefactMismatch: the folder does not have this digest.
            RegistryUnavailable: the store cannot be reached; register again.
        """
        address = str(artefact_path)
        if not address.startswith("models:/"):
            check_digest(Path(artefact_path), artefact_digest)
        with translated(self.settings):
            run = run_id or self._import_run(model, artefact_digest)
        with exclusive(self.settings), translated(self.settings):
            existing = self._registered(model, run, artefact_digest)
            if existing is not None:
                return existing
            packed = self._packed(address, run, artefact_digest)
            if packed.artefact_digest != artefact_digest:
                raise ArtefactMismatch(f"{address} has digest {packed.artefact_digest}, expected {artefact_digest}")
            return self._create(model, run, packed, description, tags)

    def logged_model(self, model: str, address: str) -> LoggedModel:
        """A model that anybody logged with MLflow, by ``models:/NAME/VERSION``, ``models:/m-ID`` or ``runs:/RUN/NAME``.

        Raises:
            UnknownAddress: there is none.
            RegistryUnavailable: the store cannot be reached.
        """
        return find_model(self._client, self.settings, model, address)

    def register_logged(self, model: str, logged: LoggedModel, digest: str, tags: Mapping[str, str]) -> Version:
        """Make a logged model a version that can be served, or the version that it is already one.

        The digest is recorded once: it says for ever which files may be loaded as this version.

        Args:
            digest: `mlflow_model.model_digest` of its folder.

        Raises:
            ArtefactMismatch: another digest is recorded for the version: its files were changed since.
        """
        # The digest comes last: with it the version is complete, however often this was cut short before.
        own = {_LOCATION_TAG: logged.location, ARTEFACT_FORMAT_TAG: "mlflow", ARTEFACT_DIGEST_TAG: digest}
        if logged.version is not None:
            return self._completed(self.get(model, logged.version), digest, {**tags, **own})
        with translated(self.settings):
            run = logged.run_id or self._import_run(model, digest)
        with exclusive(self.settings), translated(self.settings):
            known = self._registered(model, run, digest)
            return known or self._add(model, logged.location, run, {**tags, **own}, f"MLflow model of run {run}")

    def attach_evidence(self, model: str, version: int, name: str, document: Mapping[str, Any]) -> str:
        """Keep a document as the evidence `name` of a version; returns its SHA-256.

        The newest document under a name counts; earlier ones stay beside it in the run.
        """
        text = to_json(document)
        digest = hashlib.sha256(text.encode()).hexdigest()
        with self._known(model, version):
            entry = self._client.get_model_version(model, str(version))
            if entry.tags.get(_EVIDENCE_TAG + name) != digest:
                self._client.log_text(self._run_of(entry), text, _evidence_path(version, name, digest))
                self._client.set_model_version_tag(model, str(version), _EVIDENCE_TAG + name, digest)
        return digest

    def evidence(self, model: str, version: int) -> dict[str, dict[str, Any]]:
        """All evidence of a version by name, each checked against its recorded digest.

        Raises:
            EvidenceCorrupt: a stored document was changed.
        """
        from mlflow.artifacts import load_text

        with self._known(model, version):
            entry = self._client.get_model_version(model, str(version))
            digests = _evidence_digests(entry.tags)
            root = self._client.get_run(self._run_of(entry)).info.artifact_uri if digests else ""
            texts = {n: load_text(f"{root}/{_evidence_path(version, n, d)}") for n, d in digests.items()}
        for name, text in texts.items():
            if hashlib.sha256(text.encode()).hexdigest() != digests[name]:
                raise EvidenceCorrupt(f"{model} {version}: evidence {name} does not have digest {digests[name]}")
        return {name: json.loads(text) for name, text in texts.items()}

    def attach_file(self, model: str, version: int, path: Path) -> str:
        """Keep a file that an evidence document refers to, beside it; returns its SHA-256."""
        digest = digest_file(path)
        with self._known(model, version):
            entry = self._client.get_model_version(model, str(version))
            self._client.log_artifact(self._run_of(entry), str(path), _file_folder(version, digest))
        return digest

    def evidence_file(self, model: str, version: int, name: str, digest: str) -> Path:
        """A file of `attach_file` on this machine, checked against the digest that its document states.

        Raises:
            MissingEvidence: it is not there.
            EvidenceCorrupt: it was changed.
        """
        from mlflow.artifacts import download_artifacts

        with self._known(model, version):
            entry = self._client.get_model_version(model, str(version))
            run = self._run_of(entry)
            root = self._client.get_run(run).info.artifact_uri
            kept = self._client.list_artifacts(run, _file_folder(version, digest))
            inner = f"{_file_folder(version, digest)}/{name}"
            if inner not in {file.path for file in kept}:
                raise MissingEvidence(f"{model} {version}: the file {name} is gone; restore {root}/{inner}")
            path = Path(download_artifacts(artifact_uri=f"{root}/{inner}"))
        if digest_file(path) != digest:
            raise EvidenceCorrupt(f"{model} {version}: {path} does not have the digest in its evidence: it was changed")
        return path

    def move_alias(
        self, model: str, alias: str, to_version: int, *, expected: int | None, evidence_name: str
    ) -> Version:
        """Move an alias to a version that carries the named evidence; a no-op where it already is.

        `expected` is the version that should hold the alias now (None: nobody). Look and move are one
        step for all processes of this machine; MLflow itself offers no compare-and-set.

        Raises:
            MissingEvidence: `to_version` has no evidence `evidence_name`.
            AliasConflict: the alias is neither at `expected` nor already at `to_version`.
            UnknownVersion: there is no `to_version`.
        """
        target = self.get(model, to_version)
        if evidence_name not in _evidence_digests(target.tags):
            raise MissingEvidence(f"{model} {to_version} has no evidence {evidence_name!r}; {alias} stays where it is")
        with exclusive(self.settings):
            if not self._at(model, alias, expected=expected, or_already=to_version):
                with translated(self.settings):
                    self._client.set_registered_model_alias(model, alias, str(to_version))
        return self.get(model, to_version)

    def offer(self, model: str, version: int) -> Version:
        """Make a version that passed the gate the candidate, in the place of another; a no-op once it was taken up.

        Raises:
            MissingEvidence: it has no evidence of the gate.
            AliasConflict: another process offered another version meanwhile.
            UnknownVersion: there is no such version.
        """
        offered = self.get(model, version)
        if offered.taken_up:
            return offered
        waiting = self.by_alias(model, "candidate")
        expected = waiting.version if waiting else None
        return self.move_alias(model, "candidate", version, expected=expected, evidence_name="gate")

    def drop_alias(self, model: str, alias: str, *, expected: int) -> None:
        """Take an alias from the version `expected`; a no-op where nobody holds it.

        Raises:
            AliasConflict: another version holds it.
        """
        with exclusive(self.settings):
            if not self._at(model, alias, expected=expected, or_already=None):
                with translated(self.settings):
                    self._client.delete_registered_model_alias(model, alias)

    def set_tags(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version; the ones not named stay."""
        with self._known(model, version):
            for key, value in tags.items():
                self._client.set_model_version_tag(model, str(version), key, value)

    @cached_property
    def _client(self) -> MlflowClient:
        return connect(self.settings)

    @contextmanager
    def _known(self, model: str, version: int) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            with translated(self.settings):
                yield
        except MlflowException as error:
            if is_absent(error):
                raise UnknownVersion(f"the registry has no version {version} of {model}") from error
            raise

    def _at(self, model: str, alias: str, *, expected: int | None, or_already: int | None) -> bool:
        """True when nothing is left to do; raises when the alias is at neither place."""
        holder = self.by_alias(model, alias)
        current = holder.version if holder else None
        if current == or_already:
            return True
        if current != expected:
            raise AliasConflict(f"{model}: alias {alias} is at {current}, expected {expected}")
        return False

    def _registered(self, model: str, run_id: str, digest: str) -> Version | None:
        found = self._client.search_model_versions(f"name='{model}' and run_id='{run_id}'")
        same = [entry for entry in found if entry.tags.get(ARTEFACT_DIGEST_TAG) == digest]
        return self.get(model, int(same[0].version)) if same else None

    def _import_run(self, model: str, digest: str) -> str:
        experiment = experiment_id(self._client, self.settings, model)
        with exclusive(self.settings):
            known = self._client.search_runs([experiment], f"tags.imported = '{digest}'", max_results=1)
            if known:
                return str(known[0].info.run_id)
            run = self._client.create_run(experiment, run_name="import", tags={"imported": digest})
            self._client.set_terminated(run.info.run_id)
        return str(run.info.run_id)

    def _packed(self, address: str, run_id: str, digest: str) -> PackedModel:
        if address.startswith("models:/"):
            return packed_model(self._client, self.settings, address)
        return log_exported(self._client, self.settings, run_id=run_id, folder=Path(address), digest=digest)

    def _create(
        self, model: str, run_id: str, packed: PackedModel, description: str, tags: Mapping[str, str]
    ) -> Version:
        own = {ARTEFACT_DIGEST_TAG: packed.artefact_digest, ARTEFACT_PATH_TAG: packed.artefact_path}
        version = self._add(model, packed.location, run_id, {**tags, **own}, description)
        self._show_on_run(packed, model, str(version.version))
        return version

    def _add(self, model: str, location: str, run_id: str, tags: Mapping[str, str], description: str) -> Version:
        if not self._client.search_registered_models(f"name='{model}'", max_results=1):
            self._client.create_registered_model(model)
        entry = self._client.create_model_version(
            model, location, run_id=run_id, tags=dict(tags), description=description
        )
        return self._fetched(entry)

    def _completed(self, version: Version, digest: str, tags: Mapping[str, str]) -> Version:
        if version.artefact_digest not in ("", digest):
            raise ArtefactMismatch(
                f"{version.model} {version.version} was registered with digest {version.artefact_digest}, "
                f"and its files have {digest}: they were changed since"
            )
        if not version.artefact_digest:
            self.set_tags(version.model, version.version, tags)
        return self.get(version.model, version.version)

    def _run_of(self, entry: ModelVersion) -> str:
        """The run beside which a version's evidence is kept; one that was logged without a run gets one."""
        run = entry.run_id or entry.tags.get(_EVIDENCE_RUN_TAG)
        if not run:
            run = self._import_run(entry.name, f"{entry.name}/{entry.version}")
            self._client.set_model_version_tag(entry.name, entry.version, _EVIDENCE_RUN_TAG, run)
        return str(run)

    def _show_on_run(self, packed: PackedModel, model: str, version: str) -> None:
        """MLflow's own link from a run's model to its registered version, as `mlflow.register_model` writes it."""
        tag = json.dumps([{"name": model, "version": version}])
        self._client.set_logged_model_tags(packed.uri.rpartition("/")[2], {"mlflow.modelVersions": tag})

    def _entries(self, model: str) -> list[ModelVersion]:
        """Every version as MLflow searches them: without aliases, which the registered model holds."""
        entries: list[ModelVersion] = []
        token: str | None = None
        while True:
            page = self._client.search_model_versions(f"name='{model}'", max_results=_PAGE, page_token=token)
            entries += page
            token = page.token
            if not token:
                return entries

    def _version(self, entry: ModelVersion) -> Version:
        digest = entry.tags.get(ARTEFACT_DIGEST_TAG, "")
        folder = local_path(_location(entry))
        inner = entry.tags.get(ARTEFACT_PATH_TAG, "")
        return Version(
            model=entry.name,
            version=int(entry.version),
            run_id=entry.run_id or "",
            artefact=(folder / inner) if folder else self.settings.home.resolve() / "mlflow" / "cache" / digest,
            artefact_digest=digest,
            description=entry.description or "",
            tags=dict(entry.tags),
            aliases=tuple(entry.aliases),
            created_at=datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC),
        )

    def _fetched(self, entry: ModelVersion) -> Version:
        """The version with its artefact on this machine: where it lies, or copied into the cache once."""
        version = self._version(entry)
        remote = local_path(_location(entry)) is None
        if remote and version.artefact_digest and not version.artefact.exists():
            inner = version.tags.get(ARTEFACT_PATH_TAG, "")
            _download(f"{_location(entry)}/{inner}".rstrip("/"), version.artefact)
        return version


def _location(entry: ModelVersion) -> str:
    """Where a version's files are: its source, or what that stands for where it names a logged model."""
    return str(entry.tags.get(_LOCATION_TAG, entry.source))


def _evidence_digests(tags: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix(_EVIDENCE_TAG): tag for key, tag in tags.items() if key.startswith(_EVIDENCE_TAG)}


def _evidence_path(version: int, name: str, digest: str) -> str:
    return f"evidence/v{version}/{name}-{digest[:12]}.json"


def _file_folder(version: int, digest: str) -> str:
    return f"evidence/v{version}/{digest[:12]}"


def _download(location: str, target: Path) -> None:
    """Copy a remote artefact folder, unless another process has; it appears under `target` whole or not at all."""
    from mlflow.artifacts import download_artifacts

    with locked(target.parent / ".lock"):
        if target.exists():
            return
        with TemporaryDirectory(dir=target.parent, prefix=".download-") as draft:
            Path(download_artifacts(artifact_uri=location, dst_path=draft)).rename(target)
