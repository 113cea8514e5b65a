"""Gathers what the retrain policy looks at, from the windows, the registry, the runs and the evidence.

It reads and counts; what follows from it is `mlops_assets.monitoring.retrain_policy`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any

import dagster as dg
import polars as pl
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from mlops_assets.data.ingest import inbox_files, read_days
from mlops_assets.data.split import labelled_by
from mlops_assets.lineage.loop import Loop
from mlops_assets.monitoring.retrain_policy import Action, DataProblem, LedgerEntry, Outcome, Signals, WindowVerdict
from mlops_assets.monitoring.windows import read_windows
from mlops_assets.resources.registry import Registry, Version
from mlops_assets.storage import read_json
from mlops_assets.verdict import Verdict

DATA_CHECKS = (
    ("validated_messages", "contract"),
    ("validated_messages", "missing_values"),
    ("customer_features", "contract"),
    ("customer_features", "missing_values"),
    ("online_features", "served_equals_offline"),
)


def gather_signals(loop: Loop, instance: dg.DagsterInstance, *, schedule_due: bool) -> Signals:
    """Everything that is known now."""
    registry = loop.registry()
    production = registry.by_alias(loop.model, "production")
    drift = read_windows(loop.home.windows, "drift")
    known = _known_labels(loop, production)
    drifted = {
        date.fromisoformat(window["day"])
        for window in drift
        if window["verdict"] == Verdict.FAIL and production and window["reference_version"] == production.version
    }
    return Signals(
        model=loop.model,
        production_version=production.version if production else None,
        production_since=datetime.fromisoformat(production.tags["production_since"]) if production else None,
        windows=tuple(_verdicts(drift, "drift")),
        quality=tuple(_verdicts(read_windows(loop.home.windows, "quality"), "quality")),
        data_problems=tuple(_data_problems(loop, instance)),
        new_labels=known.height,
        drifted_labels=known.filter(pl.col("event_timestamp").dt.date().is_in(sorted(drifted))).height,
        in_flight=_in_flight(loop, instance, registry),
        schedule_due=schedule_due,
    )


def read_ledger(loop: Loop, instance: dg.DagsterInstance) -> list[LedgerEntry]:
    """The retrains that were asked for, with what became of each."""
    versions = {version.tags.get("decision"): version for version in loop.registry().versions(loop.model)}
    gates = {document.get("retrain"): document for document in _documents(loop, "gate")}
    entries = []
    for document in _documents(loop, "retrain"):
        if document["action"] == "retrain":
            outcome = _outcome(loop, instance, document, versions.get(document["id"]), gates.get(document["id"]))
            at = datetime.fromisoformat(document["at"])
            entries.append(LedgerEntry(at, document["key"], document["labels"], outcome))
    return entries


def ledger_rows(loop: Loop, instance: dg.DagsterInstance) -> list[dict[str, Any]]:
    """Every decision, oldest first: what was known, what was decided and why, and what became of a retrain."""
    outcomes = {(entry.at, entry.key): entry.outcome.value for entry in read_ledger(loop, instance)}
    return [_ledger_row(document, outcomes) for document in _documents(loop, "retrain")]


def _ledger_row(document: dict[str, Any], outcomes: dict[tuple[datetime, str], str]) -> dict[str, Any]:
    at, signals = datetime.fromisoformat(document["at"]), document["signals"]
    retrained = document["action"] == Action.RETRAIN
    return {
        "at": at,
        "decision": document["id"],
        "action": document["action"],
        "cause": document["cause"],
        "reason": document["reason"],
        "outcome": outcomes[at, document["key"]] if retrained else None,
        "production_version": signals["production_version"],
        "drifted_days": sum(window["verdict"] == Verdict.FAIL for window in signals["windows"]),
        "poor_days": sum(window["verdict"] == Verdict.FAIL for window in signals["quality"]),
        "new_labels": signals["new_labels"],
        "drifted_labels": signals["drifted_labels"],
        "in_flight": signals["in_flight"],
        "data_problems": "; ".join(problem["message"] for problem in signals["data_problems"]),
        "schedule_due": signals["schedule_due"],
    }


def _outcome(
    loop: Loop,
    instance: dg.DagsterInstance,
    document: dict[str, Any],
    version: Version | None,
    gate: dict[str, Any] | None,
) -> Outcome:
    if version is not None:
        rollout = version.tags.get("rollout")
        if rollout == "succeeded":
            return Outcome.RELEASED
        return Outcome.NOT_RELEASED if rollout in ("failed", "inconclusive") else Outcome.PENDING
    if gate is not None and not gate["decision"]["released"]:
        return Outcome.NOT_RELEASED
    ended = _training_ended(loop, instance, datetime.fromisoformat(document["decided"]))
    return Outcome.FAILED if ended else Outcome.PENDING


def _training_ended(loop: Loop, instance: dg.DagsterInstance, since: datetime) -> bool:
    """Whether the training run that followed a decision ended, without a version to show for it."""
    records = instance.get_run_records(dg.RunsFilter(created_after=since), limit=200)
    runs = [record.dagster_run for record in records if _trains(loop, record.dagster_run)]
    return bool(runs) and all(run.is_finished for run in runs)


def _verdicts(windows: Iterable[dict[str, Any]], kind: str) -> Iterable[WindowVerdict]:
    for window in windows:
        if window["reference_version"] is not None:
            yield WindowVerdict(
                date.fromisoformat(window["day"]), kind, Verdict(window["verdict"]), window["reference_version"]
            )


def _data_problems(loop: Loop, instance: dg.DagsterInstance) -> Iterable[DataProblem]:
    """What would make a model trained now learn from the wrong data: a broken schema, missing values, a mismatch."""
    today = loop.now().date()
    for asset, check in DATA_CHECKS:
        message = _why_it_fails(instance, dg.AssetCheckKey(loop.key(asset), check))
        if message is not None:
            yield DataProblem(today, f"{asset}:{check}", message)
    online = loop.latest(instance, "online_features")
    if online is None and inbox_files(loop.home.incoming / "customer_events"):
        yield DataProblem(today, "online_features", "the features are not built yet")


def _why_it_fails(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> str | None:
    """The message of a check whose latest evaluation is a fail; one that could not say is no proof of broken data."""
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([check]).get(check)
    event = record.event.dagster_event if record is not None and record.event else None
    if event is None or event.event_type is not dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        return None
    evaluation = event.asset_check_evaluation_data
    failed = evaluation.metadata["verdict"].value == Verdict.FAIL
    return evaluation.description or "it gave no reason" if failed else None


def _known_labels(loop: Loop, production: Version | None) -> pl.DataFrame:
    """Rows with a label that the production model was not trained on; without one, all there are."""
    rows = [part for part in (read_days(loop.home.validated), read_days(loop.home.labelled)) if part is not None]
    if not rows:
        return pl.DataFrame(schema={"event_timestamp": pl.Datetime("us", "UTC")})
    labelled = labelled_by(pl.concat(rows, how="diagonal_relaxed"), loop.now())
    if production is None:
        return labelled
    return labelled.filter(pl.col("event_timestamp") > datetime.fromisoformat(production.tags["trained_until"]))


def _in_flight(loop: Loop, instance: dg.DagsterInstance, registry: Registry) -> str | None:
    canary = registry.by_alias(loop.model, "canary")
    if canary is not None:
        return f"the canary of version {canary.version}"
    candidate = registry.by_alias(loop.model, "candidate")
    if candidate is not None and candidate.tags.get("rollout") not in ("failed", "inconclusive"):
        return f"the release of version {candidate.version}"
    runs = instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES), limit=200)
    training = next((run for run in runs if _trains(loop, run)), None)
    return f"the training run {training.run_id[:8]}" if training else None


def _trains(loop: Loop, run: dg.DagsterRun) -> bool:
    return loop.key("training_set") in (run.asset_selection or set())


def _documents(loop: Loop, kind: str) -> list[dict[str, Any]]:
    return [read_json(path) for path in sorted((loop.home.evidence / kind).glob("*.json"))]
