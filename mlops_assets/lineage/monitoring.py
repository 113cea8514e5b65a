"""Monitoring: predictions and late labels come back as assets, day by day, and the retrain policy looks at them.

Wiring only: reading the logs, the metrics and the policy are `mlops_assets.monitoring`.
"""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl

from mlops_assets.data.ingest import day_file, write_days
from mlops_assets.lineage.loop import AssetJob, Loop, check_result, last_closed_day, partition_days, range_tags
from mlops_assets.lineage.signals import gather_signals, read_ledger
from mlops_assets.monitoring.figures import quality_history
from mlops_assets.monitoring.predictions import first_event, join_labels, read_feedback, read_predictions, unmatched
from mlops_assets.monitoring.retrain_policy import Action, decide
from mlops_assets.monitoring.windows import read_windows, write_window
from mlops_assets.storage import write_json
from mlops_assets.verdict import Verdict

STAGE = "monitoring"
LATE_LABELS = timedelta(days=10)  # how far back a day is recomputed for labels that came late


class Asked(dg.Config):
    """Whether the regular retrain is what asks."""

    schedule_due: bool = False


def build(loop: Loop) -> dg.Definitions:
    """`predictions`, `labelled_predictions`, `quality`, `retrain_decision`, their jobs, and the sensor of days."""
    daily = [loop.key(name) for name in ("labelled_predictions", "quality")]
    drift = [loop.key(name) for name in ("feature_drift", "prediction_drift", "embedding_drift")]
    decision = loop.key("retrain_decision")
    judge = dg.define_asset_job(loop.name("judge_days"), dg.AssetSelection.assets(*daily, *drift, decision))
    ask = dg.define_asset_job(loop.name("decide"), dg.AssetSelection.assets(decision))
    predictions = dg.AssetSpec(
        **loop.describe(
            "predictions",
            STAGE,
            "What the endpoint answered, from its append-only log. Reported when a day is over.",
            kinds=["rayserve", "file"],
        ),
        partitions_def=loop.days,
    )
    return dg.Definitions(
        assets=[predictions, _labelled_predictions(loop), _quality(loop), _retrain_decision(loop)],
        jobs=[judge, ask],
        sensors=[_days_sensor(loop, judge)],
    )


def _labelled_predictions(loop: Loop) -> dg.AssetsDefinition:
    @dg.asset(
        **loop.describe(
            "labelled_predictions",
            STAGE,
            "Predictions of a day with the labels known by now; recomputed while labels still come back.",
            deps=["predictions"],
            kinds=["polars", "parquet"],
        ),
        partitions_def=loop.days,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def labelled_predictions(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        predictions, feedback = read_predictions(loop.home.predictions), read_feedback(loop.home.feedback)
        rows = join_labels(predictions.rows, feedback.rows, loop.now())
        for day, count in write_days(rows, partition_days(context), loop.home.labelled).items():
            labels = pl.read_parquet(day_file(loop.home.labelled, day))["label"].count() if count else 0
            context.add_asset_metadata(
                {"dagster/partition_row_count": count, "labels": labels}, partition_key=f"{day:%Y-%m-%d}"
            )
        return dg.MaterializeResult(
            metadata={
                "as_of": loop.now().isoformat(),
                "labels_without_prediction": unmatched(predictions.rows, feedback.rows),
                "torn_lines": predictions.torn + feedback.torn,
            }
        )

    return labelled_predictions


def _quality(loop: Loop) -> dg.AssetsDefinition:
    check = dg.AssetCheckSpec(
        "f1",
        asset=loop.key("quality"),
        description=f"Realised weighted F1 is not below the gate's by more than {loop.spec.monitors.max_f1_drop:g}.",
    )

    @dg.asset(
        **loop.describe(
            "quality",
            STAGE,
            "Realised weighted F1 and accuracy of a day, from the labels known by now, with bounds.",
            deps=["labelled_predictions"],
            kinds=["numpy"],
        ),
        check_specs=[check],
        partitions_def=loop.days,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def quality(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        judged = [_judge_quality(loop, day) for day in partition_days(context)]
        for document in judged:
            figures = {name: document[name] for name in ("f1_weighted", "accuracy") if document[name] is not None}
            context.add_asset_metadata(
                {
                    **figures,
                    "labels": document["labels"],
                    "verdict": document["verdict"],
                    **(_history(loop, document) if document is judged[-1] else {}),
                },
                partition_key=document["day"],
            )
        known = [document for document in judged if document["verdict"] != Verdict.INSUFFICIENT_DATA.value]
        latest = known[-1] if known else judged[-1]
        return dg.MaterializeResult(
            check_results=[
                check_result(
                    "f1",
                    Verdict(latest["verdict"]),
                    f"{latest['day']}: {latest['message']}",
                    severity=dg.AssetCheckSeverity.WARN,
                )
            ]
        )

    return quality


def _history(loop: Loop, document: dict[str, Any]) -> dict[str, Any]:
    """The plot over the days, for the latest one alone: it shows them all."""
    day = datetime.fromisoformat(document["day"])
    return {"history": dg.MetadataValue.md(quality_history(loop.home.windows, day))}


def _judge_quality(loop: Loop, day: datetime) -> dict[str, Any]:
    """The quality document of one day, against the F1 that the gate saw of the version that answered."""
    from mlops_assets.lineage.drift import reference_version
    from mlops_assets.monitoring.monitors import f1_drop
    from mlops_assets.monitoring.quality import Quality, realised

    path = day_file(loop.home.labelled, day)
    rows = pl.read_parquet(path) if path.exists() else pl.DataFrame()
    version = reference_version(rows) if rows.height else None
    found = realised(rows, as_of=loop.now(), seed=loop.spec.training.seed) if rows.height else Quality(0, 0)
    promised = loop.registry().evidence(loop.model, version)["gate"]["metrics"]["f1_weighted"] if version else 0.0
    monitor = f1_drop(found, promised, loop.spec.monitors)
    document = {
        **asdict(found),
        "as_of": loop.now(),
        "reference_version": version,
        "verdict": monitor.verdict.value,
        "message": monitor.message,
        "plain": monitor.plain,
        "plain_rule": monitor.plain_rule,
    }
    write_window(loop.home.windows, "quality", day, document)
    return {"day": f"{day:%Y-%m-%d}", **document}


def _retrain_decision(loop: Loop) -> dg.AssetsDefinition:
    check = dg.AssetCheckSpec(
        "not_due",
        asset=loop.key("retrain_decision"),
        description="No retrain is due. A failure here is what the training condition waits for.",
    )
    condition = dg.AutomationCondition
    grounds = dg.AssetSelection.assets(loop.key("validated_messages"))  # days are decided on by their own job

    @dg.asset(
        **loop.describe(
            "retrain_decision",
            STAGE,
            "Whether to retrain now, and why: one pure rule over drift, quality, age, budget and what is in flight.",
            deps=[
                *(
                    loop.all_days(name)
                    for name in (
                        "validated_messages",
                        "quality",
                        "feature_drift",
                        "prediction_drift",
                        "embedding_drift",
                    )
                ),
            ],
            kinds=["python"],
        ),
        check_specs=[check],
        automation_condition=(
            condition.any_deps_match(condition.newly_updated()).allow(grounds).since_last_handled()
            & ~condition.in_progress()
        ),
    )
    def retrain_decision(context: dg.AssetExecutionContext, config: Asked) -> dg.MaterializeResult:
        signals = gather_signals(loop, context.instance, schedule_due=config.schedule_due)
        decision = decide(signals, read_ledger(loop, context.instance), loop.spec.retrain, loop.now())
        identity = f"{loop.now():%Y%m%dT%H%M%S}-{context.run_id[:8]}"
        path = write_json(
            loop.home.evidence / "retrain" / f"{identity}.json",
            {
                "id": identity,
                "at": loop.now(),
                "decided": datetime.now(UTC),
                "labels": decision.labels,
                **asdict(decision),
            },
        )
        context.log.info(f"{decision.action.value}: {decision.reason}")
        due = decision.action is Action.RETRAIN
        judged = read_windows(loop.home.windows, "drift")
        return dg.MaterializeResult(
            metadata={
                "decision": identity,
                "action": decision.action.value,
                "cause": decision.cause.value if decision.cause else "",
                "reason": decision.reason,
                "judged_until": _end_of(judged[-1]["day"]) if judged else loop.spec.data.start.isoformat() + "T00:00Z",
                "evidence": dg.MetadataValue.path(str(path)),
            },
            check_results=[
                check_result(
                    "not_due",
                    Verdict.FAIL if due else Verdict.PASS,
                    decision.reason,
                    severity=dg.AssetCheckSeverity.WARN,
                )
            ],
        )

    return retrain_decision


def _end_of(day: str) -> str:
    return (datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1)).isoformat()


def _days_sensor(loop: Loop, job: AssetJob) -> dg.SensorDefinition:
    @dg.sensor(
        name=loop.name("days"),
        job=job,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Judges each day once it is over, together with the days before it whose labels still come back.",
    )
    def days_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        first = _first_day(loop)
        last = last_closed_day(loop.now())
        if first is None or first > last:
            return dg.SkipReason("no day with predictions is over yet")
        request = loop.in_flight(context.instance, "judge_days") or loop.step(
            context.instance,
            f"judge-{last:%Y-%m-%d}",
            tags=range_tags(max(first, last - LATE_LABELS), last),
        )
        if isinstance(request, dg.SkipReason):
            return request
        reported = dg.AssetMaterialization(loop.key("predictions"), partition=f"{last:%Y-%m-%d}")
        return dg.SensorResult(run_requests=[request], asset_events=[reported])

    return days_sensor


def _first_day(loop: Loop) -> datetime | None:
    """The day of the first prediction."""
    moment = first_event(loop.home.predictions)
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) if moment else None
