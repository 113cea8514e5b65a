"""From a prediction's id to everything behind it: version, run, data, features, spec, code, evidence."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from mlops_assets.declarations import find_specs
from mlops_assets.monitoring.predictions import read_record
from mlops_assets.resources.registry import EvidenceCorrupt, Registry, RegistryUnavailable, UnknownVersion
from mlops_assets.settings import Settings
from mlops_assets.storage import read_json

# Long, and only there to judge again, by `mlops verify` and `mlops replay`.
_REPLAYED = frozenset({"inputs", "spec", "signals", "ledger"})


class UnknownPrediction(LookupError):
    """No log of any model holds this id."""


def explain_prediction(settings: Settings, prediction_id: str) -> dict[str, dict[str, Any]]:
    """Sections of facts, from the request to the evidence of each decision.

    What the log holds is told even where the registry cannot be asked; the section `version` then says why.

    Raises:
        UnknownPrediction: the id is in no log.
        SpecError: a model's YAML is broken.
    """
    for spec in find_specs(settings.models_dir):
        home = settings.model_home(spec.name)
        records = _find(home.predictions, prediction_id)
        if records:
            request = _request(records[-1], _known_last(_find(home.feedback, prediction_id)))
            return request | _release(settings, spec.name, records[-1]["version"])
    raise UnknownPrediction(f"no log under {settings.home} holds the prediction {prediction_id}")


def _request(record: dict[str, Any], feedback: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    return {
        "prediction": {name: value for name, value in record.items() if name not in ("features", "version")},
        "features": {"source": record["features_source"], **(record["features"] or {})},
        "label": {"label": "not known yet"} if feedback is None else feedback,
    }


def _release(settings: Settings, model: str, number: int) -> dict[str, dict[str, Any]]:
    registry = Registry(settings)
    try:
        version = registry.get(model, number)
        evidence = registry.evidence(model, number)
    except (EvidenceCorrupt, RegistryUnavailable, UnknownVersion) as error:
        return {"version": {"model": model, "version": number, "no more is known": str(error)}}
    run, spec = version.tags.get("dagster_run_id"), version.tags.get("spec_digest")  # a foreign model has neither
    sections: dict[str, dict[str, Any]] = {
        "version": {
            "model": model,
            "version": version.version,
            "aliases": list(version.aliases),
            "artefact_digest": version.artefact_digest,
            "feature_service": version.tags.get("feature_service"),
            "mlflow_run": f"{settings.mlflow_url}/#/runs/{version.run_id}",
        },
        "origin": {
            "dagster_run": f"{settings.dagster_url}/runs/{run}" if run else None,
            "snapshot_digest": version.tags.get("snapshot_digest"),
            "trained_until": version.tags.get("trained_until"),
            "spec": f"{settings.mlflow_url}/#/runs/{version.run_id}/artifacts/spec.yaml" if spec else None,
            "spec_digest": spec,
            "code_commit": version.tags.get("code_commit"),
            "retrain_decision": version.tags.get("decision"),
        },
    }
    asked = settings.model_home(model).evidence / "retrain" / f"{version.tags.get('decision')}.json"
    retrain = {"retrain": read_json(asked)} if asked.exists() else {}  # the first model was not asked for
    for name, document in (retrain | evidence).items():
        sections[f"evidence: {name}"] = {part: what for part, what in document.items() if part not in _REPLAYED}
    return sections


def _known_last(labels: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The label that counts, as in `join_labels`: replicas write to segments of their own, in no order among them."""
    ordered = sorted(labels, key=lambda label: datetime.fromisoformat(label["label_timestamp"]))
    return ordered[-1] if ordered else None


def _find(folder: Path, prediction_id: str) -> list[dict[str, Any]]:
    """The records of an id in a log folder, segment by segment."""
    wanted = prediction_id.encode()
    found = []
    for segment in sorted(folder.glob("*.ndjson")):
        for line in segment.read_bytes().split(b"\n"):
            record = read_record(line) if wanted in line else None
            if record is not None and record.get("prediction_id") == prediction_id:
                found.append(record)
    return found
