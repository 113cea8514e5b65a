"""Data: messages come in, are validated day by day, and become an immutable, split snapshot.

Wiring only: the contract, the split and the leakage search live in `mlops_assets.data`.
"""

from collections.abc import Iterator
from datetime import datetime

import dagster as dg
import polars as pl

from mlops_assets.data.ingest import day_files, file_day, inbox_files
from mlops_assets.lineage.loop import AssetJob, Loop, check_result, markdown_table, partition_days, range_tags
from mlops_assets.storage import digest_json
from mlops_assets.verdict import Verdict

STAGE = "data"


def build(loop: Loop) -> dg.Definitions:
    """`messages`, `validated_messages` with `quarantine`, and the sensor of the inbox."""
    selection = dg.AssetSelection.assets(*(loop.key(name) for name in ("messages", "validated_messages", "quarantine")))
    ingest = dg.define_asset_job(loop.name("ingest"), selection)
    return dg.Definitions(
        assets=[_messages(loop), _validated_messages(loop)],
        jobs=[ingest],
        sensors=[_inbox_sensor(loop, ingest)],
    )


def _messages(loop: Loop) -> dg.AssetsDefinition:
    check = dg.AssetCheckSpec("readable", asset=loop.key("messages"), description="Every file is a table of messages.")

    @dg.asset(
        **loop.describe(
            "messages",
            STAGE,
            "The files that were put into the inbox. One that is no table is moved to quarantine, with its reason.",
            kinds=["file"],
        ),
        check_specs=[check],
    )
    def messages(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        from mlops_assets.data.ingest import not_mended, read_messages, set_aside

        inbox = read_messages(loop.home.incoming / "messages", loop.spec.data, loop.now())
        for path in set_aside(inbox.rejected, loop.home.quarantine):
            context.log.error(f"set aside: {path}")
        faults = not_mended(inbox, loop.home.quarantine)
        verdict, message = Verdict.PASS, "every file could be read"
        if faults:
            how = "put it in again under the same name, mended, or remove it from quarantine/files"
            verdict, message = Verdict.FAIL, f"{'; '.join(faults)}; {how}"
        return dg.MaterializeResult(
            metadata={
                "files": len(inbox.batches),
                "dagster/row_count": sum(batch.validated.rows for batch in inbox.batches),
                "inbox": dg.MetadataValue.path(str(loop.home.incoming / "messages")),
            },
            check_results=[check_result("readable", verdict, message)],
        )

    return messages


def _validated_messages(loop: Loop) -> dg.AssetsDefinition:
    validated_key, quarantine_key = loop.key("validated_messages"), loop.key("quarantine")

    @dg.multi_asset(
        name=loop.name("validate_messages"),
        specs=_day_specs(loop),
        check_specs=[
            dg.AssetCheckSpec(
                "contract",
                asset=validated_key,
                blocking=True,
                description=f"At most {loop.spec.data.max_quarantined_share:.0%} of the rows of a file are bad.",
            ),
        ],
        partitions_def=loop.days,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def validate_messages(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        from mlops_assets.data.ingest import judge_share, read_messages, write_days, write_quarantine
        from mlops_assets.report.quality_page import write_quality_page

        inbox = read_messages(loop.home.incoming / "messages", loop.spec.data, loop.now())
        faults = write_quarantine(inbox, loop.home.quarantine)
        verdict, message = judge_share(inbox, loop.spec.data.max_quarantined_share)
        good = inbox.good()
        if verdict.ok and good is not None:
            for day, rows in write_days(good, partition_days(context), loop.home.validated).items():
                context.add_asset_metadata(
                    {"dagster/partition_row_count": rows}, asset_key=validated_key, partition_key=f"{day:%Y-%m-%d}"
                )
        yield dg.MaterializeResult(
            asset_key=validated_key,
            metadata={
                "contract": message,
                "report": dg.MetadataValue.path(str(write_quality_page(loop.home, loop.spec))),
            },
            check_results=[check_result("contract", verdict, message)],
        )
        yield dg.MaterializeResult(
            asset_key=quarantine_key,
            metadata={
                "faults": faults.height,
                "rows": _faults_table(faults),
                "folder": dg.MetadataValue.path(str(loop.home.quarantine)),
            },
        )

    return validate_messages


def _day_specs(loop: Loop) -> list[dg.AssetSpec]:
    descriptions = {
        "validated_messages": "Messages that keep the data contract, one parquet a day in event time.",
        "quarantine": "Rows that break the contract, each with its row, column, check and reason. Nothing is lost.",
    }
    return [
        dg.AssetSpec(
            **loop.describe(name, STAGE, description, kinds=["pandera", "parquet"], deps=["messages"]),
            partitions_def=loop.days,
        )
        for name, description in descriptions.items()
    ]


def _faults_table(faults: pl.DataFrame, most: int = 20) -> dg.MetadataValue:
    if faults.is_empty():
        return dg.MetadataValue.md("none")
    columns = ("file", "row", "column", "check", "reason")
    return markdown_table(columns, faults.head(most).select(columns).iter_rows())


def _inbox_sensor(loop: Loop, job: AssetJob) -> dg.SensorDefinition:
    @dg.sensor(
        name=loop.name("inbox"),
        job=job,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Ingests what was put into the inbox, over the days that it covers or covered.",
    )
    def inbox_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        files = inbox_files(loop.home.incoming / "messages")
        state = digest_json([[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files])[:16]
        if not files or state == context.cursor:
            return dg.SkipReason("nothing new in the inbox")
        if inbox_files(loop.settings.customer_events) and not loop.latest(context.instance, "online_features"):
            return dg.SkipReason("the features of the customer events that wait too come first")
        first, last = _days_covered(loop)
        request = loop.step(context.instance, f"ingest-{state}", tags=range_tags(first, last))
        if isinstance(request, dg.RunRequest):
            context.update_cursor(state)
        return request

    return inbox_sensor


def _days_covered(loop: Loop) -> tuple[datetime, datetime]:
    """The days of all good rows and those written before, whose rows a mended file may no longer have.

    The first possible day alone where no file can be read, so that the run says why.
    """
    from mlops_assets.data.ingest import read_messages

    inbox = read_messages(loop.home.incoming / "messages", loop.spec.data, loop.now())
    days = [day for batch in inbox.batches for day in (batch.first_day, batch.last_day) if day]
    start = loop.days.time_window_for_partition_key(loop.spec.data.start.isoformat()).start
    if not days:
        return start, start
    days += [file_day(path) for path in day_files(loop.home.validated)]
    return max(start, min(days)), max(days)
