"""What starts by itself: the retrain condition, the schedule, and the alerts.

The decision to retrain is an asset (`retrain_decision`); here is only what listens to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from mlops_assets.lineage.loop import Loop
from mlops_assets.resources.notify import Severity

_NOT_ALERTS = ("not_due",)  # a retrain that is due is the loop at work
_BATCH = 200


def build(loop: Loop) -> dg.Definitions:
    """The automation sensor of this model, the regular retrain, and the alert sensor."""
    return dg.Definitions(
        sensors=[
            dg.AutomationConditionSensorDefinition(
                loop.name("automation"),
                target=dg.AssetSelection.key_prefixes(loop.model),
                minimum_interval_seconds=1,
                default_status=dg.DefaultSensorStatus.RUNNING,
            ),
            _alert_sensor(loop),
        ],
        schedules=[_regular_retrain(loop)],
    )


def retrain_condition(loop: Loop) -> dg.AutomationCondition:
    """Start when a new `retrain_decision` came whose check `not_due` failed: retraining is due."""
    decision = dg.AssetSelection.assets(loop.key("retrain_decision"))
    condition = dg.AutomationCondition
    decided = condition.any_deps_match(condition.newly_updated()).allow(decision).since_last_handled()
    due = condition.any_deps_match(condition.any_checks_match(condition.check_failed())).allow(decision)
    return decided & due & ~condition.in_progress()


def _regular_retrain(loop: Loop) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name=loop.name("regular_retrain"),
        job_name=loop.name("decide"),
        cron_schedule=loop.spec.retrain.schedule,
        execution_timezone="UTC",
        run_config={"ops": {f"{loop.model}__retrain_decision": {"config": {"schedule_due": True}}}},
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Asks the retrain policy, which still says no when there is nothing new to learn.",
    )


def _alert_sensor(loop: Loop) -> dg.SensorDefinition:
    @dg.sensor(
        name=loop.name("alerts"),
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells people of failed checks, failed runs and releases that were sent back.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        from mlops_assets.resources.notify import notify

        told: dict[str, Any] = json.loads(context.cursor) if context.cursor else {"failing": [], "runs": 0.0}
        checks = [key for key in _checks(context) if key.asset_key.path[0] == loop.model]
        states = _states(context.instance, checks)
        failing = {name: check for name, check in states.items() if not check.passed}
        pending = [name for name in told["failing"] if name not in states]
        found = [
            *(_worse(loop, check) for name, check in failing.items() if name not in told["failing"]),
            *(_better(loop, name) for name in told["failing"] if name in states and name not in failing),
            *_failed_runs(loop, context.instance, told),
            *_sent_back(loop),
        ]
        for alert in found:
            notify(loop.settings, alert.title, alert.body, alert.severity)
        context.update_cursor(json.dumps({**told, "failing": sorted([*failing, *pending])}))
        return dg.SkipReason(f"{len(found)} alerts sent, {len(failing)} checks fail")

    return alerts


@dataclass(frozen=True)
class _Alert:
    title: str
    body: str
    severity: Severity


def _checks(context: dg.SensorEvaluationContext) -> list[dg.AssetCheckKey]:
    definitions = context.repository_def
    assert definitions is not None
    return [key for key in definitions.asset_graph.asset_check_keys if key.name not in _NOT_ALERTS]


def _states(instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey]) -> dict[str, dg.AssetCheckEvaluation]:
    """The latest evaluation of each check; one that is being evaluated now is left out until it has an answer."""
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
    states = {}
    for key, record in records.items():
        event = record.event.dagster_event if record.event else None
        if event is not None and event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            states[f"{key.asset_key.to_user_string()}:{key.name}"] = event.asset_check_evaluation_data
    return states


def _worse(loop: Loop, check: dg.AssetCheckEvaluation) -> _Alert:
    where = f"{loop.settings.dagster_url}/assets/{'/'.join(check.asset_key.path)}?view=checks"
    severity = Severity.PAGE if check.severity is dg.AssetCheckSeverity.ERROR else Severity.TICKET
    title = f"{check.asset_key.to_user_string()}: check {check.check_name} fails"
    return _Alert(title, f"{check.description}\nLook at {where}", severity)


def _better(loop: Loop, name: str) -> _Alert:
    asset, _, check = name.partition(":")
    body = f"Nothing to do. Look at {loop.settings.dagster_url}/assets/{asset}?view=checks"
    return _Alert(f"{asset}: check {check} no longer fails", body, Severity.RESOLVED)


def _failed_runs(loop: Loop, instance: dg.DagsterInstance, told: dict[str, Any]) -> Iterator[_Alert]:
    """Runs of this model that failed since the last look; `told` moves on as they are read."""
    since = datetime.fromtimestamp(told["runs"], UTC)
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    for record in instance.get_run_records(failed, limit=_BATCH, order_by="update_timestamp", ascending=True):
        told["runs"] = max(told["runs"], record.update_timestamp.timestamp())
        run = record.dagster_run
        ours = any(key.path[0] == loop.model for key in run.asset_selection or ())
        if ours or run.job_name.startswith(f"{loop.model}_"):
            where = f"{loop.settings.dagster_url}/runs/{run.run_id}"
            title = f"{loop.model}: run {run.run_id[:8]} ({run.job_name}) failed"
            yield _Alert(title, f"Look at {where}", Severity.PAGE)


def _sent_back(loop: Loop) -> Iterator[_Alert]:
    """Versions whose rollout failed and of which nobody was told yet; the registry remembers who was."""
    registry = loop.registry()
    for version in registry.versions(loop.model):
        outcome = version.tags.get("rollout")
        if outcome in ("failed", "inconclusive") and "alerted" not in version.tags:
            evidence = registry.evidence(loop.model, version.version).get("rollout", {})
            registry.set_tags(loop.model, version.version, {"alerted": "true"})
            yield _Alert(
                f"{loop.model}: the rollout of version {version.version} ended {outcome}",
                f"{evidence.get('reason', 'no reason was recorded')}\nThe stable version answers. "
                f"Look at {loop.settings.endpoint}/models/{loop.model}/rollout",
                Severity.TICKET,
            )
