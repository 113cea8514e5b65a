"""What starts by itself: the retrain that was decided on, the schedule, and the alerts.

The decision to retrain is an asset (`retrain_decision`); here is only what listens to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from mlops_assets.lineage.loop import Loop
from mlops_assets.lineage.signals import (
    DECISION_TAG,
    data_problems,
    decisions_on_record,
    requested_retrain,
    under_way,
)
from mlops_assets.monitoring.alerts import Finding, Message, Severity, recall, remember, review
from mlops_assets.monitoring.retrain_policy import Action
from mlops_assets.resources.registry import OFFERED_TAG, RegistryUnavailable, Version
from mlops_assets.verdict import Verdict

_BATCH = 200
_ALERTED_TAG = "alerted"
_ANSWERS = {
    Action.RETRAIN: "a retrain was requested",
    Action.WAIT: "a retrain waits",
    Action.MEND_DATA: "no retrain before the data is mended",
    Action.NONE: "nothing",
}


def build(loop: Loop) -> dg.Definitions:
    """The sensors of this model that decide, retrain and alert, and the regular retrain."""
    return dg.Definitions(
        sensors=[
            dg.AutomationConditionSensorDefinition(
                loop.name("automation"),
                target=dg.AssetSelection.key_prefixes(loop.model),
                minimum_interval_seconds=1,
                default_status=dg.DefaultSensorStatus.RUNNING,
            ),
            _retrain_sensor(loop),
            _alert_sensor(loop),
        ],
        schedules=[_regular_retrain(loop)],
    )


def _retrain_sensor(loop: Loop) -> dg.SensorDefinition:
    @dg.sensor(
        name=loop.name("retrain_when_due"),
        job_name=loop.name("retrain"),
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts a retrain that was decided on: once, and never beside another or beside a release.",
    )
    def retrain_when_due(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        """Reads what was decided and which runs there are, so that no request is lost and none is served twice."""
        known = str(decisions_on_record(loop))
        if known == context.cursor:
            return dg.SkipReason("nothing was decided since the last look")
        busy = under_way(loop, context.instance)
        if busy is not None:
            return dg.SkipReason(f"{busy} is under way: one at a time")
        due = requested_retrain(loop, context.instance)
        if due is None:
            context.update_cursor(known)
            return dg.SkipReason("no retrain is due")
        problems = [problem.message for problem in data_problems(loop, context.instance)]
        if problems:
            return dg.SkipReason(f"the retrain of decision {due} waits until the data is mended: {problems[0]}")
        return dg.RunRequest(run_key=due, tags={DECISION_TAG: due})

    return retrain_when_due


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
        description="Tells people of failing checks, one alert per cause, of a version that is refused for its files, "
        "of failed runs, of releases sent back and of those that wait for a person.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        from mlops_assets.resources.notify import notify

        told: dict[str, Any] = json.loads(context.cursor) if context.cursor else {"open": [], "runs": 0.0}
        opened, evaluations = recall(told.get("open", [])), _evaluations(loop, context)
        stopped = {run_id for run_id, check in evaluations if check.blocking and not check.passed}
        sent_back = _sent_back(loop)
        messages = [*_failed_runs(loop, context.instance, told, stopped), *(message for _, message in sent_back)]
        # Its checks come one by one, and the decision on them last: one alert can only be made of all of them.
        if loop.in_flight(context.instance, "judge_days") is None:
            findings = [
                *(_finding(loop, check) for _, check in evaluations),
                *_served_artefact(loop),
                *_undecided(loop),
                *_given_up(loop, context.instance),
            ]
            done = _done(loop, context.instance)
            changes, opened = review(loop.model, findings, opened, done, now=loop.now().isoformat())
            messages += changes
        for message in messages:
            notify(loop.settings, message.title, message.body, message.severity)
        for version, _ in sent_back:
            loop.registry().set_tags(loop.model, version.version, {_ALERTED_TAG: _offering(version)})
        context.update_cursor(json.dumps({**told, "open": remember(opened)}))
        return dg.SkipReason(f"{len(messages)} messages sent, {len(opened)} alerts are open")

    return alerts


def _evaluations(loop: Loop, context: dg.SensorEvaluationContext) -> list[tuple[str, dg.AssetCheckEvaluation]]:
    """The latest answer of every check of this model, and the run that gave it; one being evaluated now has none."""
    definitions = context.repository_def
    assert definitions is not None
    keys = [key for key in definitions.asset_graph.asset_check_keys if key.asset_key.path[0] == loop.model]
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


def _served_artefact(loop: Loop) -> list[Finding]:
    """Whether the endpoint could load the version that it is to serve; nothing while it does not say."""
    from mlops_assets.resources.endpoint import EndpointRefused, EndpointUnavailable

    try:
        with loop.endpoint() as endpoint:
            refused = endpoint.refused_version(loop.model)
    except (EndpointRefused, EndpointUnavailable):
        return []  # that it is down is said elsewhere
    if refused is None:
        return []
    verdict = Verdict.FAIL if refused else Verdict.PASS
    message = f"version {refused}: its files are not those that were registered, or cannot be loaded"
    return [Finding("endpoint:artefact", verdict, Severity.PAGE, message, "", f"{loop.settings.endpoint}/health")]


def _done(loop: Loop, instance: dg.DagsterInstance) -> dict[str, str]:
    """What was done about a cause already, in words; about most, the retrain policy's latest answer."""
    done = {
        "artefact": "it does not serve, what served before goes on",
        "approval": "the canary keeps its share, and a guard stops it for harm",
        "retrain": "no further one is started for this cause",
    }
    decision = loop.latest(instance, "retrain_decision") or {}
    if "action" not in decision:
        return done
    answer = f"{_ANSWERS[decision['action']]} ({decision['reason']})"
    return done | dict.fromkeys(("drift", "quality", "data"), answer)


def _undecided(loop: Loop) -> Iterator[Finding]:
    """Whether a rollout waits for a person; nothing while the endpoint or the registry cannot say."""
    from mlops_assets.resources.endpoint import EndpointRefused, EndpointUnavailable

    verdict, why = Verdict.PASS, "no version waits for a person"
    try:
        if loop.registry().by_alias(loop.model, "canary") is not None:
            with loop.endpoint() as endpoint:
                rollout = endpoint.rollout(loop.model)
            if rollout["phase"] == "waiting_promotion":
                verdict, why = Verdict.FAIL, f"version {rollout['version']}: {rollout['reason']}"
    except (EndpointUnavailable, EndpointRefused, RegistryUnavailable):
        return
    url = f"{loop.settings.endpoint}/models/{loop.model}/rollout/page"
    yield Finding(f"{loop.model}/canary:decided", verdict, Severity.TICKET, why, "", url)


def _given_up(loop: Loop, instance: dg.DagsterInstance) -> Iterator[Finding]:
    """Whether the retrain policy has tried in vain: what is still wrong needs a person."""
    decision = loop.latest(instance, "retrain_decision") or {}
    if "action" not in decision:
        return
    in_vain = decision["action"] == Action.NONE.value and decision["cause"] != ""
    verdict = Verdict.FAIL if in_vain else Verdict.PASS
    url = f"{loop.settings.dagster_url}/assets/{loop.model}/retrain_decision"
    yield Finding(f"{loop.model}/retrain_decision:helps", verdict, Severity.TICKET, decision["reason"], "", url)


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
            yield Message(title, f"Done about it: {_next_attempt(run)}.\nLook at {where}", Severity.PAGE)


def _next_attempt(run: dg.DagsterRun) -> str:
    if run.is_complete_and_waiting_to_retry:
        return "its worker died, and it is run again"
    if DECISION_TAG in run.tags:
        return "the retrain policy is asked again when the next day is judged"
    return "what a sensor asks for is tried three times"


def _sent_back(loop: Loop) -> list[tuple[Version, Message]]:
    """Versions whose rollout failed and of which nobody was told yet; nothing while the registry cannot say."""
    try:
        registry = loop.registry()
        untold = [
            (version, registry.evidence(loop.model, version.version).get("rollout", {}))
            for version in registry.versions(loop.model)
            if version.sent_back and version.tags.get(_ALERTED_TAG) != _offering(version)
        ]
    except RegistryUnavailable:
        return []
    return [(version, _ended(loop, version, evidence)) for version, evidence in untold]


def _ended(loop: Loop, version: Version, evidence: dict[str, Any]) -> Message:
    return Message(
        f"{loop.model}: the rollout of version {version.version} ended {version.tags['rollout']}",
        f"{evidence.get('reason', 'no reason was recorded')}\n"
        "Done about it: the canary was stopped, the stable version answers.\n"
        f"Look at {loop.settings.endpoint}/models/{loop.model}/rollout",
        Severity.TICKET,
    )


def _offering(version: Version) -> str:
    """Which of a version's rollouts the last one is; each is told."""
    return version.tags.get(OFFERED_TAG, "true")
