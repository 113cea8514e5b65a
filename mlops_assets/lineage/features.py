"""Features: customer aggregates offline, the same values online, and their join to the training rows.

Wiring only: the aggregates are `mlops_assets.data.customer_features`, the store is behind
`mlops_assets.resources.feast`.
"""

import dagster as dg
import polars as pl

from mlops_assets.lineage.loop import AssetJob, Loop, check_result, last_closed_day
from mlops_assets.storage import digest_json
from mlops_assets.verdict import Verdict

STAGE = "features"


def build(loop: Loop) -> dg.Definitions:
    """`customer_features`, `online_features` with its skew check, `training_features`, and their sensor."""
    selection = dg.AssetSelection.assets(loop.key("customer_features"), loop.key("online_features"))
    refresh = dg.define_asset_job(loop.name("refresh_features"), selection)
    return dg.Definitions(
        assets=[_customer_features(loop), _online_features(loop)],
        jobs=[refresh],
        sensors=[_features_sensor(loop, refresh)],
    )


def _customer_features(loop: Loop) -> dg.AssetsDefinition:
    @dg.asset(
        **loop.describe(
            "customer_features",
            STAGE,
            "Purchases, returns and tenure of each customer whenever one of their events became known, over 90 days.",
            kinds=["polars", "parquet"],
        ),
        pool="customer_features",  # of all models: they read the same inbox and write the same file
        check_specs=[
            dg.AssetCheckSpec(
                "contract",
                asset=loop.key("customer_features"),
                blocking=True,
                description="Every file is a table of customer events, and at most "
                f"{loop.spec.data.max_quarantined_share:.0%} of its rows are bad.",
            )
        ],
    )
    def customer_features(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        from mlops_assets.data.customer_features import customer_features as aggregate
        from mlops_assets.data.customer_features import merge_events
        from mlops_assets.data.ingest import judge_share, read_events, set_aside, write_quarantine

        inbox = read_events(loop.settings.customer_events)
        for path in set_aside(inbox.rejected, loop.settings.quarantine):
            context.log.error(f"set aside: {path}")
        write_quarantine(inbox, loop.settings.quarantine / "customer_events")
        files = [batch.validated.good for batch in inbox.batches]
        events = merge_events(files)
        known = events.filter(pl.col("event_timestamp") <= loop.now())
        if inbox.batches:
            verdict, message = judge_share(inbox, loop.spec.data.max_quarantined_share)
        else:
            verdict, message = Verdict.PASS, "no customer events: every feature is its default"
        rows = loop.feature_store().replace_offline(aggregate(known)) if verdict.ok and inbox.batches else 0
        if inbox.rejected:
            verdict, message = Verdict.FAIL, "; ".join(file.reason for file in inbox.rejected)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": rows,
                "events": known.height,
                "repeated_in_another_file": sum(file.height for file in files) - events.height,
                "known_by": loop.now().isoformat(),
            },
            check_results=[check_result("contract", verdict, message)],
        )

    return customer_features


def _online_features(loop: Loop) -> dg.AssetsDefinition:
    skew = dg.AssetCheckSpec(
        "served_equals_offline",
        asset=loop.key("online_features"),
        description="A sample of what is served, replayed against the point-in-time join.",
    )

    @dg.asset(
        **loop.describe(
            "online_features",
            STAGE,
            "The features as the endpoint looks them up, brought to what is known now.",
            kinds=["feast", "sqlite"],
            deps=["customer_features"],
        ),
        check_specs=[skew],
    )
    def online_features(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        store = loop.feature_store()
        done = store.materialize(loop.now())
        context.log.info(
            f"{done.written} of {done.customers} customers changed, {done.late} of them late; {done.gone} are gone"
        )
        report = store.check_skew(store.sample_customers(loop.spec.features.skew_sample, seed=done.customers))
        return dg.MaterializeResult(
            metadata={
                "customers": done.customers,
                "written": done.written,
                "late": done.late,
                "gone": done.gone,
                "as_of": done.to.isoformat(),
                "skew": report.verdict.value,
                "skew_message": report.message,
            },
            check_results=[check_result("served_equals_offline", report.verdict, report.message)],
        )

    return online_features


def _features_sensor(loop: Loop, job: AssetJob) -> dg.SensorDefinition:
    @dg.sensor(
        name=loop.name("features"),
        job=job,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Refreshes the features once a day, and when customer events were put into the inbox.",
    )
    def features_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        from mlops_assets.data.ingest import inbox_files

        files = inbox_files(loop.settings.customer_events)
        if not files:
            return dg.SkipReason("no customer events were ever put into the inbox; features are their defaults")
        day = last_closed_day(loop.now()).date().isoformat()
        state = digest_json([day, [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]])[:16]
        # Judging a day goes first: whoever waits for its verdict should not wait for this.
        busy = loop.in_flight(context.instance, "judge_days") or loop.in_flight(context.instance, "refresh_features")
        return busy or loop.step(context.instance, f"features-{day}-{state}")

    return features_sensor
