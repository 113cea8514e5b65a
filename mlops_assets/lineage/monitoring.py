"""Monitoring: predictions and late labels come back as assets, day by day, and are looked at every day and hour.

Wiring only: this file has the assets of the log, the jobs and their sensor; `quality`, `monitors` and
`retraining` have what looks at them.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl

from mlops_assets.data.ingest import day_file, day_files, file_day, write_days
from mlops_assets.lineage import monitors
from mlops_assets.lineage.loop import AssetJob, Loop, last_closed_day, partition_days, range_tags
from mlops_assets.lineage.quality import quality_asset
from mlops_assets.lineage.retraining import decision_ledger_asset, retrain_decision_asset
from mlops_assets.monitoring.predictions import (
    answers,
    first_event,
    join_labels,
    read_feedback,
    read_requests,
    relabel,
    unmatched,
)
from mlops_assets.monitoring.retention import prune
from mlops_assets.monitoring.traffic import start_of_hour

STAGE = "monitoring"


def build(loop: Loop) -> dg.Definitions:
    """From `predictions` to the decision on retraining, the monitors, their jobs, and the sensor of days."""
    predictions = dg.AssetSpec(
        **loop.describe(
            "predictions",
            STAGE,
            "What the endpoint answered, from its append-only log. Reported when a day is over.",
            kinds=["rayserve", "file"],
        ),
        partitions_def=loop.days,
    )
    assets = [
        _labelled_predictions(loop),
        quality_asset(loop),
        retrain_decision_asset(loop),
        decision_ledger_asset(loop),
    ]
    jobs = _jobs(loop)
    return dg.Definitions(
        assets=[predictions, *assets],
        asset_checks=monitors.build(loop),
        jobs=jobs,
        sensors=[_days_sensor(loop, jobs)],
    )


def _jobs(loop: Loop) -> list[AssetJob]:
    """`judge_days`: all that a day that is over calls for; `watch`: only the monitors; `decide`: only the policy."""

    def assets(*names: str) -> dg.AssetSelection:
        return dg.AssetSelection.assets(*(loop.key(name) for name in names))

    answers = assets("labelled_predictions", "quality")
    drift = assets("feature_drift", "prediction_drift", "embedding_drift")
    decision = assets("retrain_decision", "decision_ledger")
    watched = dg.AssetSelection.checks(*monitors.check_keys(loop))
    return [
        dg.define_asset_job(loop.name("judge_days"), answers | drift | watched | decision),
        dg.define_asset_job(loop.name("watch"), answers | watched),
        dg.define_asset_job(loop.name("decide"), decision),
    ]


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
        days, now = partition_days(context), loop.now()
        since = _logged_since(loop, days[0])
        requests, feedback = read_requests(loop.home.predictions, since), read_feedback(loop.home.feedback, since)
        predictions = answers(requests.rows)
        # What the log does not give any more stays: the labelled day is the only place where it still is.
        before = [pl.read_parquet(file) for day in days if (file := day_file(loop.home.labelled, day)).exists()]
        rows = join_labels(predictions, feedback.rows, now)
        if before:
            kept = relabel(pl.concat(before, how="diagonal_relaxed"), requests.rows, feedback.rows, now)
            rows = pl.concat([rows, kept], how="diagonal_relaxed")
        for day, count in write_days(rows, days, loop.home.labelled).items():
            labels = pl.read_parquet(day_file(loop.home.labelled, day))["label"].count() if count else 0
            context.add_asset_metadata(
                {"dagster/partition_row_count": count, "labels": labels}, partition_key=f"{day:%Y-%m-%d}"
            )
        return dg.MaterializeResult(
            metadata={
                "as_of": now.isoformat(),
                "labels_without_prediction": unmatched(predictions, feedback.rows),
                "torn_lines": requests.torn + feedback.torn,
                **_pruned(loop),
            }
        )

    return labelled_predictions


def _logged_since(loop: Loop, day: datetime) -> date | None:
    """The first day of the log that may have to do with what happened on a day or later; None: any may.

    Segments are dated by the wall clock, which may have been set back by a little.
    """
    return None if loop.settings.replay_clock else day.date() - timedelta(days=1)


def _pruned(loop: Loop) -> dict[str, int]:
    """Take out of the log what the settings no longer want kept; how many segments went, and how many old ones wait."""
    keep = loop.settings.log_retention_days
    if keep is None or loop.settings.replay_clock:  # segments are dated by the wall clock
        return {}
    done = prune(loop.home, timedelta(days=keep), datetime.now(UTC).date())
    return {"log_segments_removed": len(done.removed), "old_log_segments_not_read_yet": len(done.waiting)}


def _days_sensor(loop: Loop, jobs: Sequence[AssetJob]) -> dg.SensorDefinition:
    @dg.sensor(
        name=loop.name("days"),
        jobs=jobs,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Judges each day once it is over, together with the days before it whose labels still come back; "
        "looks at the monitors every hour; asks the retrain policy about a model that grows old without traffic.",
    )
    def days_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        request, over = _next_look(loop, context.instance)
        if isinstance(request, dg.SkipReason):
            return request
        reported = [dg.AssetMaterialization(loop.key("predictions"), partition=f"{day:%Y-%m-%d}") for day in over]
        return dg.SensorResult(run_requests=[request], asset_events=reported)

    return days_sensor


def _next_look(loop: Loop, instance: dg.DagsterInstance) -> tuple[dg.RunRequest | dg.SkipReason, list[datetime]]:
    """What is to be looked at now, and the days whose predictions are reported with it: they are over."""
    busy = loop.in_flight(instance, "judge_days") or loop.in_flight(instance, "watch")
    if busy is not None:
        return busy, []
    first, last = _first_day(loop), last_closed_day(loop.now())
    if first is None or first > last:
        return _growing_old(loop, instance, last), []
    labels_come_back = max(first, last - timedelta(days=loop.spec.data.labels_within_days))
    day = loop.step(instance, f"judge-{last:%Y-%m-%d}", job_name=loop.name("judge_days"))
    if isinstance(day, dg.RunRequest):
        # However long nobody looked: a day that was never judged comes along.
        begin = min([labels_come_back, *_not_made(loop, instance, "labelled_predictions", first, last)])
        tagged = day.with_replaced_attrs(tags={**day.tags, **range_tags(begin, last)})
        return tagged, _not_made(loop, instance, "predictions", first, last)
    hour = start_of_hour(loop.now())
    if hour == last + timedelta(days=1):
        return day, []  # the day itself was looked at within this hour
    tags = range_tags(labels_come_back, last)
    return loop.step(instance, f"watch-{hour:%Y-%m-%dT%H}", tags=tags, job_name=loop.name("watch")), []


def _not_made(loop: Loop, instance: dg.DagsterInstance, asset: str, first: datetime, last: datetime) -> list[datetime]:
    """The days from `first` to `last` of which an asset was never materialized."""
    made = instance.get_materialized_partitions(loop.key(asset))
    days = (first + timedelta(days=number) for number in range((last - first).days + 1))
    return [day for day in days if f"{day:%Y-%m-%d}" not in made]


def _growing_old(loop: Loop, instance: dg.DagsterInstance, day: datetime) -> dg.RunRequest | dg.SkipReason:
    """Without a day to judge nobody would ask whether the model is too old: ask once a day, once it is."""
    production = loop.registry().production(loop.model)
    limit = timedelta(days=loop.spec.retrain.max_age_days)
    if production is None or loop.now() - production.production_since <= limit:
        return dg.SkipReason("no day with predictions is over yet")
    return loop.step(instance, f"decide-{day:%Y-%m-%d}", job_name=loop.name("decide"))


def _first_day(loop: Loop) -> datetime | None:
    """The day of the first prediction, in the log or labelled already."""
    labelled = day_files(loop.home.labelled)
    if labelled:
        return file_day(labelled[0])
    moment = first_event(loop.home.predictions)
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) if moment else None
