"""What starts by itself: the retrain condition, the schedule, and the alerts.

The decision to retrain is an asset (`retrain_decision`); here is only what listens to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from mlops_assets.lineage.loop import Loop
from mlops_assets.monitoring.alerts import Finding, Message, Severity, recall, remember, review
from mlops_assets.monitoring.retrain_policy import Action
from mlops_assets.verdict import Verdict

_NOT_ALERTS = ("not_due",)  # a retrain that is due is the loop at work
_BATCH = 200
_ANSWERS = {
    Action.RETRAIN: "a retrain was requested",
    Action.WAIT: "a retrain waits",
    Action.MEND_DATA: "no retrain before the data is mended",
    Action.NONE: "nothing",
}


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
        description="Tells people of failing checks, one alert per cause, of failed runs and of releases sent back.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        from mlops_assets.resources.notify import notify

        told: dict[str, Any] = json.loads(context.cursor) if context.cursor else {"open": [], "runs": 0.0}
        opened, evaluations = recall(told.get("open", [])), _evaluations(loop, context)
        stopped = {run_id for run_id, check in evaluations if check.blocking and not check.passed}
        messages = [*_failed_runs(loop, context.instance, told, stopped), *_sent_back(loop)]
        # Its checks come one by one, and the decision on them last: one alert can only be made of all of them.
        if loop.in_flight(context.instance, "judge_days") is None:
            findings, done = [_finding(loop, check) for _, check in evaluations], _done(loop, context.instance)
            changes, opened = review(loop.model, findings, opened, done, now=loop.now().isoformat())
            messages += changes
        for message in messages:
            notify(loop.settings, message.title, message.body, message.severity)
        context.update_cursor(json.dumps({**told, "open": remember(opened)}))
        return dg.SkipReason(f"{len(messages)} messages sent, {len(opened)} alerts are open")

    return alerts


def _evaluations(loop: Loop, context: dg.SensorEvaluationContext) -> list[tuple[str, dg.AssetCheckEvaluation]]:
    """The latest answer of every check of this model, and the run that gave it; one being evaluated now has none."""
    definitions = context.repository_def
    assert definitions is not None
    keys = [
        key
        for key in definitions.asset_graph.asset_check_keys
        if key.asset_key.path[0] == loop.model and key.name not in _NOT_ALERTS
    ]
    records = context.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    events = ((record.run_id, record.event.dagster_event) for record in records.values() if record.event)
    return [
        (run_id, event.asset_check_evaluation_data)
        for run_id, event in events
        if event is not None and event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ]


def _finding(loop: Loop, check: dg.AssetCheckEvaluation) -> Finding:
    metadata = {name: value.value for name, value in check.metadata.items()}
    return Finding(
        check=f"{check.asset_key.to_user_string()}:{check.check_name}",
        verdict=Verdict(str(metadata["verdict"])),
        severity=Severity.PAGE if check.severity is dg.AssetCheckSeverity.ERROR else Severity.TICKET,
        message=check.description or "",
        window=str(metadata.get("day", "")),
        url=f"{loop.settings.dagster_url}/assets/{'/'.join(check.asset_key.path)}?view=checks",
    )


def _done(loop: Loop, instance: dg.DagsterInstance) -> dict[str, str]:
    """What the loop itself did about a cause, in words: the retrain policy's latest answer."""
    decision = loop.latest(instance, "retrain_decision") or {}
    if "action" not in decision:
        return {}
    answer = f"{_ANSWERS[decision['action']]} ({decision['reason']})"
    return dict.fromkeys(("drift", "quality", "data"), answer)


def _failed_runs(
    loop: Loop, instance: dg.DagsterInstance, told: dict[str, Any], stopped: set[str]
) -> Iterator[Message]:
    """Runs of this model that failed since the last look; `told` moves on as they are read.

    Runs that a blocking check `stopped` did what they should; the check has an alert of its own.
    """
    since = datetime.fromtimestamp(told["runs"], UTC)
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    for record in instance.get_run_records(failed, limit=_BATCH, order_by="update_timestamp", ascending=True):
        told["runs"] = max(told["runs"], record.update_timestamp.timestamp())
        run = record.dagster_run
        ours = any(key.path[0] == loop.model for key in run.asset_selection or ())
        if run.run_id not in stopped and (ours or run.job_name.startswith(f"{loop.model}_")):
            where = f"{loop.settings.dagster_url}/runs/{run.run_id}"
            title = f"{loop.model}: run {run.run_id[:8]} ({run.job_name}) failed"
            yield Message(
                title, f"Done about it: what a sensor asks for is tried three times.\nLook at {where}", Severity.PAGE
            )


def _sent_back(loop: Loop) -> Iterator[Message]:
    """Versions whose rollout failed and of which nobody was told yet; the registry remembers who was."""
    registry = loop.registry()
    for version in registry.versions(loop.model):
        outcome = version.tags.get("rollout")
        if outcome in ("failed", "inconclusive") and "alerted" not in version.tags:
            evidence = registry.evidence(loop.model, version.version).get("rollout", {})
            registry.set_tags(loop.model, version.version, {"alerted": "true"})
            yield Message(
                f"{loop.model}: the rollout of version {version.version} ended {outcome}",
                f"{evidence.get('reason', 'no reason was recorded')}\n"
                "Done about it: the canary was stopped, the stable version answers.\n"
                f"Look at {loop.settings.endpoint}/models/{loop.model}/rollout",
                Severity.TICKET,
            )
