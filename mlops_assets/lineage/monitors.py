"""The monitors as asset checks, each on the asset that it speaks of.

Wiring only: what a monitor asks and how it judges is `mlops_assets.monitoring`. A failing check that may wake
somebody is an error in Dagster's words, any other a warning.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from mlops_assets.data.customer_features import required_of_events
from mlops_assets.data.ingest import day_files, inbox_files
from mlops_assets.data.tables import read_table, to_events, to_messages
from mlops_assets.data.validation import required_of_messages
from mlops_assets.lineage.alarm_limits import Limits, day_of, keep_look, known_limits, may_wake, refreshed_limits
from mlops_assets.lineage.loop import Loop, check_result
from mlops_assets.monitoring.catalogue import CATALOGUE, LOOKS
from mlops_assets.monitoring.windows import latest_windows
from mlops_assets.verdict import Verdict

WATCHED = {
    "f1": "quality",
    "correctness": "quality",
    "estimated_f1": "quality",
    "prediction_mix": "prediction_drift",
    "feature_shift": "feature_drift",
    "latency": "predictions",
    "throughput": "predictions",
    "processor": "predictions",
}


def check_keys(loop: Loop) -> list[dg.AssetCheckKey]:
    """The checks that the hourly and the daily job evaluate."""
    return [dg.AssetCheckKey(loop.key(asset), name) for name, asset in WATCHED.items()]


def build(loop: Loop) -> list[dg.AssetChecksDefinition]:
    """All monitors: those that look at production, and one per inbox that looks at values as they arrive."""

    def messages(path: Path) -> pl.DataFrame:
        table = to_messages(read_table(path), loop.spec.data.columns)
        return table.select(required_of_messages(table, loop.spec.data))

    def events(path: Path) -> pl.DataFrame:
        table = to_events(read_table(path))
        return table.select(required_of_events(table))

    return [
        _production_monitors(loop),
        _missing_values(loop, "validated_messages", loop.home.incoming / "messages", messages),
        _missing_values(loop, "customer_features", loop.settings.customer_events, events),
    ]


def _production_monitors(loop: Loop) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(
        name=loop.name("monitors"),
        specs=[_spec(loop, name, asset) for name, asset in WATCHED.items()],
        can_subset=True,
    )
    def monitors(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        limits = refreshed_limits(loop)
        results = watch(loop, limits)
        keep_look(loop, {f"{WATCHED[name]}:{name}": result for name, result in results.items()})
        for key in context.op_execution_context.selected_asset_check_keys:
            yield _evaluated(loop, key, results[key.name], limits)

    return monitors


def watch(loop: Loop, limits: Limits) -> dict[str, Any]:
    """What every monitor of production says now, by name."""
    from mlops_assets.monitoring.look import CONFIRMED_DAYS, RECENT_DAYS, Known, look
    from mlops_assets.monitoring.machine import read_samples
    from mlops_assets.monitoring.serving_monitors import processor
    from mlops_assets.monitoring.traffic import read_traffic

    spec, windows = loop.spec.monitors, loop.home.windows
    days = [d for d in latest_windows(windows, "quality", RECENT_DAYS) if d["reference_version"] is not None]
    known = Known(
        at=loop.now(),
        quality=days,
        answers=_answers_of(loop, days[-1]["reference_version"] if days else None),
        drift=latest_windows(windows, "drift", CONFIRMED_DAYS),
        traffic=read_traffic(loop.home.predictions, windows / "traffic.json", spec.max_p99_ms, loop.now()),
    )
    results = look(known, spec, limits.scores)
    slow = results["latency"].verdict
    return results | {"processor": processor(read_samples(loop.settings.home), datetime.now(UTC), slow, spec)}


def _answers_of(loop: Loop, version: int | None) -> pl.DataFrame:
    """The answers of one version with the labels known when their day was last labelled."""
    columns = ("message_id", "predicted", "label", "event_timestamp", "label_timestamp")
    files = day_files(loop.home.labelled)
    if version is None or not files:
        schema = dict.fromkeys(columns, pl.String) | {name: pl.Datetime("us", "UTC") for name in columns[3:]}
        return pl.DataFrame(schema=schema)
    return pl.scan_parquet(files).filter(pl.col("version") == version).select(columns).collect()


def _missing_values(
    loop: Loop, asset: str, inbox: Path, read: Callable[[Path], pl.DataFrame]
) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        name="missing_values",
        asset=loop.key(asset),
        description=_spec(loop, "missing_values", asset).description,
        metadata=_spec(loop, "missing_values", asset).metadata,
    )
    def missing_values() -> dg.AssetCheckResult:
        from mlops_assets.monitoring.monitors import missing_values as judge

        limits = known_limits(loop)
        files = inbox_files(inbox)
        results = [judge(*_missing(read(path)), loop.spec.monitors, limits["missing_values"]) for path in files]
        if not results:
            return check_result("missing_values", Verdict.INSUFFICIENT_DATA, "there is no file in the inbox")
        broken = [number for number, result in enumerate(results) if result.verdict is Verdict.FAIL]
        shown = broken[0] if broken else len(results) - 1
        keep_look(loop, {f"{asset}:missing_values": results[shown]})
        key = dg.AssetCheckKey(loop.key(asset), "missing_values")
        return _evaluated(loop, key, results[shown], limits, where=files[shown].name)

    return missing_values


def _missing(table: pl.DataFrame) -> tuple[dict[str, int], int]:
    """Missing values by column, NaN among them, and the rows."""
    nulls = table.with_columns(pl.selectors.float().fill_nan(None)).null_count()
    return nulls.row(0, named=True), table.height


def _spec(loop: Loop, name: str, asset: str) -> dg.AssetCheckSpec:
    monitor = CATALOGUE[name]
    return dg.AssetCheckSpec(
        name,
        asset=loop.key(asset),
        description=f"{monitor.question} Looked at {monitor.cadence}, over {monitor.window}; "
        + ("may wake somebody." if monitor.looks else "opens a ticket at most."),
        metadata={
            "cadence": monitor.cadence,
            "window": monitor.window,
            "owner": ", ".join(loop.spec.owners) or "nobody",
        },
    )


def _evaluated(
    loop: Loop, key: dg.AssetCheckKey, result: Any, limits: Limits, *, where: str = ""
) -> dg.AssetCheckResult:
    figures = {"value": result.value, "limit": result.limit, "rows": result.n, "score": result.score}
    known: dict[str, Any] = {name: value for name, value in figures.items() if value is not None}
    if result.name in LOOKS:
        known["pages_from_score"] = limits[result.name]
        known["limits"] = str(limits.evidence) if limits.evidence else "from the error rates alone"
    plain = "cannot say" if result.plain is None else ("fires" if result.plain else "quiet")
    return check_result(
        key.name,
        result.verdict,
        f"{where}: {result.message}" if where else result.message,
        asset=key.asset_key,
        severity=dg.AssetCheckSeverity.ERROR if may_wake(result) else dg.AssetCheckSeverity.WARN,
        metadata={**known, "plain_rule": f"{result.plain_rule}: {plain}", "day": day_of(loop)},
    )
