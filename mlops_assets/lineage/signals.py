"""Gathers what the retrain policy looks at, from the windows, the registry, the runs and the evidence.

It reads and counts; what follows from it is `mlops_assets.monitoring.retrain_policy`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import dagster as dg
import polars as pl
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from mlops_assets.data.ingest import inbox_files, known_rows
from mlops_assets.data.split import labelled_by
from mlops_assets.lineage.loop import Loop
from mlops_assets.monitoring.retrain_policy import Action, DataProblem, LedgerEntry, Outcome, Signals, WindowVerdict
from mlops_assets.monitoring.windows import read_windows
from mlops_assets.resources.registry import Version
from mlops_assets.storage import read_json
from mlops_assets.verdict import Verdict

DECISION_TAG = "mlops/decision"  # on a run: the decision that it carries out
# What a retrain makes, in order.
CHAIN = ("training_set", "test_set", "training_features", "trials", "candidate", "evaluation", "registered_version")
_RUNS = 20  # of a job or a check: those before them ended long ago
_RUN_AGAIN_WITHIN = timedelta(minutes=10)
_RELEASING = {"candidate", "canary", "production"}
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
    production = registry.production(loop.model)
    drift = tuple(_verdicts(loop, production, "drift", of="traffic"))
    known = _known_labels(loop, production)
    drifted = {window.day for window in drift if window.verdict is Verdict.FAIL}
    return Signals(
        model=loop.model,
        production_version=production.version if production else None,
        production_since=production.production_since if production else None,
        windows=drift,
        quality=tuple(_verdicts(loop, production, "quality", of="quality")),
        data_problems=tuple(data_problems(loop, instance)),
        new_labels=known.height,
        drifted_labels=known.filter(pl.col("event_timestamp").dt.date().is_in(sorted(drifted))).height,
        in_flight=under_way(loop, instance),
        schedule_due=schedule_due,
    )


def traffic_since(loop: Loop, decision: str) -> datetime | None:
    """Since when the traffic is what it is: the beginning of the shift that a decision is about, else of production's.

    `decision` is empty for a retrain that a person asked for. None where no shift is known.
    """
    document = read_json(loop.home.evidence / "retrain" / f"{decision}.json") if decision else {}
    began = document.get("shift_began")
    if began is not None:
        return datetime.combine(date.fromisoformat(began), time(), UTC)
    production = loop.registry().production(loop.model)
    before = production.tags.get("traffic_since") if production else None
    return datetime.fromisoformat(before) if before else None


def read_ledger(loop: Loop, instance: dg.DagsterInstance) -> list[LedgerEntry]:
    """The retrains that were asked for, with what became of each."""
    return [
        LedgerEntry(datetime.fromisoformat(document["at"]), document["key"], document["labels"], outcome)
        for document, outcome in _retrains(loop, instance, _decisions(loop))
    ]


def requested_retrain(loop: Loop, instance: dg.DagsterInstance) -> str | None:
    """The decision whose retrain no run has taken up yet."""
    retrains = _retrains(loop, instance, _decisions(loop))
    return next((document["id"] for document, outcome in retrains if outcome is Outcome.REQUESTED), None)


def ledger_rows(loop: Loop, instance: dg.DagsterInstance) -> list[dict[str, Any]]:
    """Every decision, oldest first: what was known, what was decided and why, and what became of a retrain."""
    decisions = _decisions(loop)
    outcomes = {document["id"]: outcome.value for document, outcome in _retrains(loop, instance, decisions)}
    return [_ledger_row(document, outcomes.get(document["id"])) for document in decisions]


def decisions_on_record(loop: Loop) -> int:
    """How many decisions were taken; each stays on record."""
    return sum(1 for _ in (loop.home.evidence / "retrain").glob("*.json"))


def under_way(loop: Loop, instance: dg.DagsterInstance) -> str | None:
    """What is under way, of which there is to be one at a time: a training, a submission, a candidate or a canary.

    They are looked at in the order in which one becomes the next, so that none slips through in between.
    """
    for run in _latest_runs(loop, instance):
        if _makes_a_version(loop, run) and not _has_ended(instance, run):
            return f"the {'submission' if run.job_name == loop.name('submit') else 'training'} run {run.run_id[:8]}"
    registry = loop.registry()
    candidate = registry.by_alias(loop.model, "candidate")
    if candidate is not None and not candidate.sent_back:
        return f"the release of version {candidate.version}"
    canary = registry.by_alias(loop.model, "canary")
    return f"the canary of version {canary.version}" if canary is not None else None


def _ledger_row(document: dict[str, Any], outcome: str | None) -> dict[str, Any]:
    signals = document["signals"]
    return {
        "at": datetime.fromisoformat(document["at"]),
        "decision": document["id"],
        "action": document["action"],
        "cause": document["cause"],
        "reason": document["reason"],
        "outcome": outcome,
        "production_version": signals["production_version"],
        "drifted_days": _failed(signals["windows"]),
        "poor_days": _failed(signals["quality"]),
        "new_labels": signals["new_labels"],
        "drifted_labels": signals["drifted_labels"],
        "in_flight": signals["in_flight"],
        "data_problems": "; ".join(problem["message"] for problem in signals["data_problems"]),
        "schedule_due": signals["schedule_due"],
    }


def _failed(windows: Sequence[dict[str, Any]]) -> int:
    return sum(window["verdict"] == Verdict.FAIL for window in windows)


def _retrains(
    loop: Loop, instance: dg.DagsterInstance, decisions: Iterable[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], Outcome]]:
    """Those of the decisions that were to retrain, each with what became of it."""
    registry = loop.registry()
    production = registry.production(loop.model)
    versions = {version.tags.get("decision"): version for version in reversed(registry.versions(loop.model))}
    gates = {document.get("retrain"): document for document in _documents(loop, "gate")}
    asked = [document for document in decisions if document["action"] == Action.RETRAIN]
    for document in asked:
        decision = document["id"]
        runs = instance.get_runs(dg.RunsFilter(tags={DECISION_TAG: decision}))
        is_open = document is asked[-1] and _serves_still(document, production)  # the next is asked for once it ended
        is_running = any(not _has_ended(instance, run) for run in runs)
        version, gate = versions.get(decision), gates.get(decision)
        yield document, _outcome(version, gate, runs, is_running=is_running, is_open=is_open)


def _serves_still(decision: dict[str, Any], production: Version | None) -> bool:
    """Whether the version that was decided about serves on, and was not away in between."""
    signals = decision["signals"]
    if production is None or signals["production_version"] != production.version:
        return production is None and signals["production_version"] is None
    return production.production_since == datetime.fromisoformat(signals["production_since"])


def _outcome(
    version: Version | None,
    gate: dict[str, Any] | None,
    runs: Sequence[dg.DagsterRun],
    *,
    is_running: bool,
    is_open: bool,
) -> Outcome:
    """What became of a decision to retrain, from its version, its gate and its runs.

    `is_running`: one of the runs has not ended. `is_open`: it may still begin.
    """
    if version is not None and version.tags.get("rollout") == "succeeded":
        return Outcome.RELEASED
    if version is not None and version.sent_back:
        return Outcome.NOT_RELEASED
    if is_running or (version is not None and not _RELEASING.isdisjoint(version.aliases)):
        return Outcome.PENDING
    if gate is not None and not gate["decision"]["released"]:
        return Outcome.NOT_RELEASED
    if runs and not any(run.is_success for run in runs):
        return Outcome.FAILED
    has_begun = runs or gate is not None or version is not None
    return Outcome.REQUESTED if is_open and not has_begun else Outcome.OVERTAKEN


def _has_ended(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a run is over for good: one whose worker died is run again by Dagster, within seconds or never."""
    if not run.is_complete_and_waiting_to_retry:
        return run.is_finished
    record = instance.get_run_record_by_id(run.run_id)
    assert record is not None
    return datetime.now(UTC) - record.update_timestamp > _RUN_AGAIN_WITHIN


def _verdicts(loop: Loop, production: Version | None, kind: str, *, of: str) -> Iterator[WindowVerdict]:
    """Those on the present production version, oldest first; none of an earlier time when it was production too."""
    if production is None:
        return
    since = production.production_since.date()
    for window in read_windows(loop.home.windows, kind):
        day = date.fromisoformat(window["day"])
        if window["reference_version"] == production.version and day >= since:
            yield WindowVerdict(day, of, Verdict(window["verdict"]), production.version)


def data_problems(loop: Loop, instance: dg.DagsterInstance) -> Iterable[DataProblem]:
    """What would make a model trained now learn from the wrong data: a broken schema, missing values, a mismatch."""
    today = loop.now().date()
    for asset, check in DATA_CHECKS:
        message = _why_it_fails(instance, dg.AssetCheckKey(loop.key(asset), check))
        if message is not None:
            yield DataProblem(today, f"{asset}:{check}", message)
    online = loop.latest(instance, "online_features")
    if online is None and inbox_files(loop.settings.customer_events):
        yield DataProblem(today, "online_features", "the features are not built yet")


def _why_it_fails(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> str | None:
    """The message of a check whose last answer is a fail, or that it could not say; too few rows are no problem.

    While it is being evaluated anew, and where that was cut short, the answer before holds.
    """
    for record in instance.event_log_storage.get_asset_check_execution_history(check, limit=_RUNS):
        event = record.event.dagster_event if record.event else None
        if event is not None and event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            broken = evaluation.metadata["verdict"].value in (Verdict.FAIL, Verdict.ERROR)
            return evaluation.description or "it gave no reason" if broken else None
    return None


def _known_labels(loop: Loop, production: Version | None) -> pl.DataFrame:
    """Rows with a label that the production model was not trained on; without one, all there are."""
    rows = known_rows(loop.home)
    if not rows:
        return pl.DataFrame(schema={"event_timestamp": pl.Datetime("us", "UTC")})
    labelled = labelled_by(pl.concat(rows, how="diagonal_relaxed"), loop.now())
    if production is None:
        return labelled
    return labelled.filter(pl.col("event_timestamp") > production.trained_until)


def _latest_runs(loop: Loop, instance: dg.DagsterInstance) -> Iterable[dg.DagsterRun]:
    """The latest runs of the jobs that make a version, and all that have not ended: assets may be made by hand."""
    for job in ("retrain", "submit"):
        yield from instance.get_runs(dg.RunsFilter(job_name=loop.name(job)), limit=_RUNS)
    yield from instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))


def _makes_a_version(loop: Loop, run: dg.DagsterRun) -> bool:
    by_job = run.job_name in (loop.name("retrain"), loop.name("submit"))
    return by_job or not {loop.key(asset) for asset in CHAIN}.isdisjoint(run.asset_selection or ())


def _decisions(loop: Loop) -> list[dict[str, Any]]:
    """All decisions, in the order in which they were taken: several may be of one moment of a replayed clock."""
    return sorted(_documents(loop, "retrain"), key=lambda document: str(document["decided"]))


def _documents(loop: Loop, kind: str) -> Iterator[dict[str, Any]]:
    return (read_json(path) for path in (loop.home.evidence / kind).glob("*.json"))
