"""Does a release follow from what it was decided on? Its evidence, recomputed from the stored inputs.

Fetches the recorded documents, the snapshot, and the exported models by their digests, asks the models again, and has
the decisions made again under the spec of the day (`release.replay`). Measured latencies and counted requests are
what they were. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.exceptions import PolarsError

from mlops_assets.f1 import customer_numbers
from mlops_assets.lineage import measures
from mlops_assets.release.replay import Doubt, Finding, State, compare_gate, replay_rollout
from mlops_assets.resources.registry import (
    EvidenceCorrupt,
    MissingEvidence,
    Registry,
    RegistryUnavailable,
    UnknownVersion,
)
from mlops_assets.settings import Settings
from mlops_assets.spec import ModelSpec
from mlops_assets.storage import digest_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mlops_assets.data.snapshots import Snapshot
    from mlops_assets.release.gate_inputs import GateInputs

_CLAIMS = ("f1", "champion", "leakage", "calibration")  # first parts of the names of claims that read rows
_EXIT = {State.FOLLOWS: 0, State.DIFFERS: 1, State.MISSING: 2}


@dataclass(frozen=True)
class Verification:
    """What became of each recorded claim of one version."""

    model: str
    version: int
    findings: tuple[Finding, ...]

    @property
    def state(self) -> State:
        """`FOLLOWS` where every claim does."""
        return State.worst([finding.state for finding in self.findings])

    @property
    def exit_code(self) -> int:
        """0 it follows, 1 it does not, 2 it could not be recomputed."""
        return _EXIT[self.state]


def verify_version(settings: Settings, model: str, version: int) -> Verification:
    """Recompute every piece of evidence that a version carries; what stands in the way is a finding too."""
    registry = Registry(settings)
    try:
        documents = registry.evidence(model, version)
    except EvidenceCorrupt as error:
        return Verification(model, version, (_changed("evidence", error),))
    except (UnknownVersion, RegistryUnavailable) as error:
        return Verification(model, version, (_absent("evidence", str(error)),))
    findings = _gate(settings, registry, model, version, documents.get("gate", {}))
    if "rollout" in documents:
        findings += _rollout(documents["rollout"])
    return Verification(model, version, findings)


def _rollout(document: Mapping[str, Any]) -> tuple[Finding, ...]:
    try:
        return replay_rollout(document)
    except (KeyError, TypeError, ValueError) as error:
        return (_absent("rollout", f"the rollout was recorded in another form than this code reads: {error!r}"),)


def _gate(
    settings: Settings, registry: Registry, model: str, version: int, document: Mapping[str, Any]
) -> tuple[Finding, ...]:
    from mlops_assets.release.evidence import inputs_from
    from mlops_assets.release.gate import judge

    if document.get("judged") is False:  # an MLflow model of another make, released by a waiver
        return (_absent("gate", f"there is nothing to recompute: {document['decision']['summary']}"),)
    if "inputs" not in document:
        return (_absent("gate", "the gate's evidence holds no inputs: it was recorded by an earlier version"),)
    try:
        paths = {name.partition(".")[2]: (name, digest) for name, digest in document["files"].items()}
        rows, features = (
            pl.read_parquet(registry.evidence_file(model, version, *paths[part]))
            for part in ("rows.parquet", "features.parquet")
        )
        spec = ModelSpec.model_validate(document["spec"])
        recorded = inputs_from(document["inputs"], rows)
    except EvidenceCorrupt as error:
        return (_changed("gate", error),)
    except (MissingEvidence, RegistryUnavailable) as error:
        return (_absent("gate", str(error)),)
    except (KeyError, TypeError, ValueError, PolarsError) as error:
        commit = registry.get(model, version).tags.get("code_commit", "unknown")
        return (_absent("gate", f"this code cannot read the evidence, that of commit {commit} can: {error!r}"),)
    stored = _Stored(settings, registry, version, document, spec, rows, features)
    inputs, doubts = _measured_again(stored, recorded)
    return (*_told(document), *compare_gate(document["decision"], judge(inputs, spec.gate), doubts))


@dataclass(frozen=True)
class _Stored:
    """What a gate decision is recomputed from."""

    settings: Settings
    registry: Registry
    version: int
    document: Mapping[str, Any]
    spec: ModelSpec
    rows: pl.DataFrame
    features: pl.DataFrame


def _measured_again(stored: _Stored, recorded: GateInputs) -> tuple[GateInputs, dict[str, Doubt]]:
    """The gate's inputs with all that can be measured again in place of what was recorded; the rest is in doubt.

    A doubt stands under the first part of the names of the claims that it touches.
    """
    from mlops_assets.data.leak_search import find_leaks
    from mlops_assets.release.evidence import ROW_ID, numbers_of
    from mlops_assets.release.gate_inputs import Champion

    rows = _snapshot(stored)
    if isinstance(rows, Doubt):
        return recorded, dict.fromkeys(_CLAIMS, rows)
    frame, forgotten = rows
    assert recorded.latencies_ms is not None
    test = measures.rows_to_judge(frame, recorded.latencies_ms, stored.spec)
    if test[ROW_ID].to_list() != stored.rows[ROW_ID].to_list():
        other = Doubt(State.DIFFERS, "the recorded answers are to other rows than the test rows of the snapshot")
        return recorded, dict.fromkeys(_CLAIMS, forgotten or other)
    doubts = {} if forgotten is None else {"leakage": forgotten}  # it alone reads the rows that were learned from
    inputs = replace(
        recorded,
        truth=numbers_of(test["label"], recorded.labels),
        customers=customer_numbers(test["customer_id"]),
        leakage=recorded.leakage if forgotten else find_leaks(frame, stored.document["snapshot_manifest"], stored.spec),
    )
    answer = _answers(stored, stored.version, stored.document["artefact_digest"], test)
    if isinstance(answer, Doubt):
        doubts |= dict.fromkeys(("f1", "champion", "calibration"), answer)
    else:
        inputs = replace(inputs, probabilities=answer, predicted=answer.argmax(axis=1))
    champion = recorded.champion
    if isinstance(champion, Champion):
        theirs = _answers(stored, int(champion.version), champion.artefact_digest, test)
        if isinstance(theirs, Doubt):
            doubts["champion"] = doubts.get("champion", theirs)
        else:
            newest = measures.newer_than(test, datetime.fromisoformat(champion.trained_until))
            inputs = replace(inputs, champion=replace(champion, predicted=theirs.argmax(axis=1)), newest=newest)
    return inputs, doubts


def _snapshot(stored: _Stored) -> tuple[pl.DataFrame, Doubt | None] | Doubt:
    """The rows that were judged, with the features of the day, and the doubt that comes with rows that are gone."""
    from mlops_assets.data.snapshots import SnapshotCorrupt, SnapshotMissing, load_snapshot

    folder, digest = stored.settings.model_home(stored.spec.name).snapshots, stored.document["snapshot_digest"]
    try:
        snapshot = load_snapshot(folder, digest)
        rows = snapshot.read()
    except SnapshotMissing as error:
        return Doubt(State.MISSING, f"{error}; restore {digest}.parquet and .json from a copy")
    except SnapshotCorrupt as error:
        return Doubt(State.DIFFERS, f"the snapshot is not the one that was judged: {error}")
    return measures.with_features(rows, stored.features), _forgotten(snapshot)


def _forgotten(snapshot: Snapshot) -> Doubt | None:
    """What a snapshot's manifest says of rows that `mlops forget` took out."""
    if not snapshot.forgotten:
        return None
    changes = "; ".join(f"on {entry.at[:10]}, {entry.rows} rows" for entry in snapshot.forgotten)
    left = f"{snapshot.digest[:12]} is {snapshot.content[:12]} now"
    return Doubt(State.MISSING, f"the snapshot was changed by `mlops forget` {changes}; {left}")


def _answers(stored: _Stored, version: int, digest: str, rows: pl.DataFrame) -> NDArray[np.float32] | Doubt:
    """What a registered version answers to the rows, if it is still the exported model with this digest."""
    from mlops_assets.resources.mlflow_model import MLMODEL
    from mlops_assets.resources.predictors import load_predictor
    from mlops_assets.training.artefact import MANIFEST, NETWORK, TOKENIZER, ArtefactError

    try:
        found = stored.registry.get(stored.spec.name, version)
        folder, form = found.artefact, found.artefact_format
        needed = (MANIFEST, NETWORK, TOKENIZER) if form == "export" else (MLMODEL,)
        missing = [name for name in needed if not (folder / name).is_file()]
        if missing:
            return Doubt(State.MISSING, f"version {version} lacks {', '.join(missing)} in {folder}; restore the {form}")
        predictor = load_predictor(folder, digest, form, stored.spec, threads=2)
    except (UnknownVersion, RegistryUnavailable) as error:
        return Doubt(State.MISSING, str(error))
    except ArtefactError as error:
        return Doubt(State.DIFFERS, f"version {version} is not the model that was judged: {error}")
    answers: NDArray[np.float32] = measures.answers(predictor, rows, stored.spec.data.labels)
    return answers


def _told(document: Mapping[str, Any]) -> tuple[Finding, ...]:
    """What the document says twice must agree with itself."""
    uses, listed = document["inputs"]["earlier_uses"], len(document["earlier_decisions"])
    spec = digest_json(document["spec"])
    return (
        _agreed("gate.spec", document["spec_digest"], spec, "the spec of the day, by its digest"),
        _agreed("gate.earlier_uses", str(uses), str(listed), "decisions that used the test set before"),
    )


def _agreed(name: str, recorded: str, again: str, message: str) -> Finding:
    state = State.FOLLOWS if recorded == again else State.DIFFERS
    return Finding(name, state, recorded[:12], again[:12], message)


def _changed(name: str, error: Exception) -> Finding:
    return Finding(name, State.DIFFERS, "", "", str(error))


def _absent(name: str, reason: str) -> Finding:
    return Finding(name, State.MISSING, "", "", reason)
