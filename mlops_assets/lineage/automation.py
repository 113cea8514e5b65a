"""What starts by itself: the retrain condition, the schedule, and the alerts.

The decision to retrain is an asset (`retrain_decision`); here is only what listens to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg

from mlops_assets.lineage.loop import Loop
from mlops_assets.resources.notify import Severity

_CHECKED = dg.DagsterEventType.ASSET_CHECK_EVALUATION
_RUN_FAILED = dg.DagsterEventType.RUN_FAILURE
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

        seen: dict[str, int] = json.loads(context.cursor) if context.cursor else {}
        found = [*_new_events(loop, context.instance, seen), *_sent_back(loop)]
        for alert in found:
            notify(loop.settings, alert.title, alert.body, Severity(alert.severity))
        context.update_cursor(json.dumps(seen))
        return dg.SkipReason(f"{len(found)} alerts sent")

    return alerts


@dataclass(frozen=True)
class _Alert:
    title: str
    body: str
    severity: str


def _new_events(loop: Loop, instance: dg.DagsterInstance, seen: dict[str, int]) -> Iterator[_Alert]:
    """Alerts for the events since `seen`, which moves on as they are read."""
    for event_type, to_alert in ((_CHECKED, _of_check), (_RUN_FAILED, _of_run)):
        after = seen.get(event_type.value)
        records = instance.get_event_records(
            dg.EventRecordsFilter(event_type, after_cursor=after), limit=_BATCH, ascending=True
        )
        for record in records:
            seen[event_type.value] = record.storage_id
            alert = to_alert(loop, instance, record.event_log_entry)
            if alert is not None:
                yield alert


def _of_check(loop: Loop, instance: dg.DagsterInstance, entry: dg.EventLogEntry) -> _Alert | None:  # noqa: ARG001
    event = entry.dagster_event
    check = event.asset_check_evaluation_data if event else None
    if check is None or check.passed or check.asset_key.path[0] != loop.model or check.check_name in _NOT_ALERTS:
        return None
    where = f"{loop.settings.dagster_url}/assets/{'/'.join(check.asset_key.path)}?view=checks"
    severity = "page" if check.severity is dg.AssetCheckSeverity.ERROR else "ticket"
    title = f"{check.asset_key.to_user_string()}: check {check.check_name} failed"
    return _Alert(title, f"{check.description}\nLook at {where}", severity)


def _of_run(loop: Loop, instance: dg.DagsterInstance, entry: dg.EventLogEntry) -> _Alert | None:
    run = instance.get_run_by_id(entry.run_id)
    ours = run is not None and any(key.path[0] == loop.model for key in run.asset_selection or ())
    if run is None or not (ours or run.job_name.startswith(f"{loop.model}_")):
        return None
    where = f"{loop.settings.dagster_url}/runs/{run.run_id}"
    return _Alert(f"{loop.model}: run {run.run_id[:8]} ({run.job_name}) failed", f"Look at {where}", "page")


def _sent_back(loop: Loop) -> Iterator[_Alert]:
    """Versions whose rollout failed and of which nobody was told yet; the registry remembers who was."""
    registry = loop.registry()
    for version in registry.versions(loop.model):
        outcome = version.tags.get("rollout")
        if outcome in ("failed", "inconclusive") and "alerted" not in version.tags:
            registry.set_tags(loop.model, version.version, {"alerted": "true"})
            evidence = registry.evidence(loop.model, version.version).get("rollout", {})
            yield _Alert(
                f"{loop.model}: the rollout of version {version.version} ended {outcome}",
                f"{evidence.get('reason', 'no reason was recorded')}\nThe stable version answers. "
                f"Look at {loop.settings.endpoint}/models/{loop.model}/rollout",
                "ticket",
            )
