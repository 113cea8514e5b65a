"""The monitors as asset checks, each on the asset that it speaks of, and the limits of those that page.

Wiring only: what a monitor asks and how it judges is `mlops_assets.monitoring`. A failing check that may wake
somebody is an error in Dagster's words, any other a warning.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from mlops_assets.data.ingest import inbox_files
from mlops_assets.data.tables import read_table, to_events, to_messages
from mlops_assets.lineage.loop import Loop, check_result
from mlops_assets.monitoring.catalogue import CATALOGUE, LOOKS
from mlops_assets.monitoring.windows import latest_windows, read_window, read_windows, write_window
from mlops_assets.storage import digest_json, read_json, write_json
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
_REQUIRED = ("message_id", "customer_id", "text", "event_timestamp")  # a label may come later, or never
_RECENT = 10  # days among which the present version is sought


def check_keys(loop: Loop) -> list[dg.AssetCheckKey]:
    """The checks that the hourly and the daily job evaluate."""
    return [dg.AssetCheckKey(loop.key(asset), name) for name, asset in WATCHED.items()]


def build(loop: Loop) -> list[dg.AssetChecksDefinition]:
    """All monitors: those that look at production, and one per inbox that looks at values as they arrive."""

    def messages(path: Path) -> pl.DataFrame:
        return to_messages(read_table(path), loop.spec.data.columns).select(_REQUIRED)

    def events(path: Path) -> pl.DataFrame:
        return to_events(read_table(path))

    return [
        _production_monitors(loop),
        _missing_values(loop, "validated_messages", loop.home.incoming / "messages", messages),
        _missing_values(loop, "customer_features", loop.home.incoming / "customer_events", events),
    ]


def _production_monitors(loop: Loop) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(
        name=loop.name("monitors"),
        specs=[_spec(loop, name, asset) for name, asset in WATCHED.items()],
        can_subset=True,
    )
    def monitors(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        limits = _refreshed_limits(loop)
        results = watch(loop, limits)
        _keep_look(loop, {f"{WATCHED[name]}:{name}": result for name, result in results.items()}, limits)
        for key in context.op_execution_context.selected_asset_check_keys:
            yield _evaluated(loop, key, results[key.name], limits)

    return monitors


def watch(loop: Loop, limits: Mapping[str, float]) -> dict[str, Any]:
    """What every monitor of production says now, by name."""
    from mlops_assets.monitoring.look import RECENT_DAYS, Known, look
    from mlops_assets.monitoring.machine import read_samples
    from mlops_assets.monitoring.serving_monitors import processor
    from mlops_assets.monitoring.traffic import read_traffic

    spec, windows = loop.spec.monitors, loop.home.windows
    days = [d for d in latest_windows(windows, "quality", RECENT_DAYS) if d["reference_version"] is not None]
    known = Known(
        at=loop.now(),
        quality=days,
        answers=_answers_of(loop, days[-1]["reference_version"] if days else None),
        drift=next(iter(latest_windows(windows, "drift", 1)), None),
        traffic=read_traffic(loop.home.predictions, windows / "traffic.json", spec.max_p99_ms, loop.now()),
    )
    results = look(known, spec, limits)
    slow = results["latency"].verdict
    return results | {"processor": processor(read_samples(loop.settings.home), datetime.now(UTC), slow, spec)}


def _answers_of(loop: Loop, version: int | None) -> pl.DataFrame:
    """The answers of one version with the labels known when their day was last labelled."""
    columns = ("message_id", "predicted", "label", "event_timestamp", "label_timestamp")
    files = sorted(loop.home.labelled.glob("????-??-??.parquet"))
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

        limits = _known_limits(loop)
        files = inbox_files(inbox)
        results = [judge(*_missing(read(path)), loop.spec.monitors, limits["missing_values"]) for path in files]
        if not results:
            return check_result("missing_values", Verdict.INSUFFICIENT_DATA, "there is no file in the inbox")
        broken = [number for number, result in enumerate(results) if result.verdict is Verdict.FAIL]
        shown = broken[0] if broken else len(results) - 1
        _keep_look(loop, {f"{asset}:missing_values": results[shown]}, limits)
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
    loop: Loop, key: dg.AssetCheckKey, result: Any, limits: Mapping[str, float], *, where: str = ""
) -> dg.AssetCheckResult:
    figures = {"value": result.value, "limit": result.limit, "rows": result.n, "score": result.score}
    known = {name: value for name, value in figures.items() if value is not None}
    if result.name in limits:
        known["pages_from_score"] = limits[result.name]
    plain = "cannot say" if result.plain is None else ("fires" if result.plain else "quiet")
    return check_result(
        key.name,
        result.verdict,
        f"{where}: {result.message}" if where else result.message,
        asset=key.asset_key,
        severity=dg.AssetCheckSeverity.ERROR if _pages(result, limits) else dg.AssetCheckSeverity.WARN,
        metadata={**known, "plain_rule": f"{result.plain_rule}: {plain}", "day": _day_of(loop)},
    )


def _day_of(loop: Loop) -> str:
    from mlops_assets.monitoring.look import day_of

    return f"{day_of(loop.now()):%Y-%m-%d}"


# the limits


def _known_limits(loop: Loop) -> dict[str, float]:
    """The limits in force; the analytic ones before the first look at production."""
    from mlops_assets.monitoring.alarm_budget import limits_within_budget

    newest = _newest_limits(loop)
    if newest is not None:
        return {name: limit["score"] for name, limit in newest["limits"].items()}
    analytic = limits_within_budget([], LOOKS, loop.spec.monitors.pages_per_quarter)
    return {name: limit.score for name, limit in analytic.items()}


def _refreshed_limits(loop: Loop) -> dict[str, float]:
    """The limits in force, set anew for a new version, a new budget, and every week; kept with their evidence."""
    from mlops_assets.monitoring.alarm_budget import Ground, limits_within_budget, replay, still_hold

    answered = [day["reference_version"] for day in latest_windows(loop.home.windows, "drift", _RECENT)]
    version = next((v for v in reversed(answered) if v is not None), None)
    ground, newest = Ground(loop.now(), version, loop.spec.monitors.pages_per_quarter), _newest_limits(loop)
    if newest is None or not still_hold(Ground.of(newest), ground):
        days = [day for day in read_windows(loop.home.windows, "monitors") if day["quiet"]]
        history = [day["scores"] for day in days]
        limits = limits_within_budget(history, LOOKS, ground.pages_per_quarter, seed=loop.spec.training.seed)
        document = {
            **asdict(ground),
            "quiet_days": [day["day"] for day in days],
            "history_digest": digest_json(history),
            "limits": limits,
            "replay": replay(history, limits),
        }
        write_json(loop.home.evidence / "alarm_limits" / f"{ground.at:%Y%m%dT%H%M%S}-v{version or 0}.json", document)
    return _known_limits(loop)


def _newest_limits(loop: Loop) -> dict[str, Any] | None:
    kept = sorted((loop.home.evidence / "alarm_limits").glob("*.json"))
    return read_json(kept[-1]) if kept else None


def _keep_look(loop: Loop, found: Mapping[str, Any], limits: Mapping[str, float]) -> None:
    """Keep what a look found, by check (``asset:monitor``), with the day that it speaks of.

    Later limits learn from the day's highest score of each monitor, if it was a quiet day; a replay looks again at
    what was looked at.
    """
    from mlops_assets.monitoring.alarm_budget import highest
    from mlops_assets.monitoring.look import day_of

    day = day_of(loop.now())
    before = read_window(loop.home.windows, "monitors", day) or {"scores": {}}
    drift = read_window(loop.home.windows, "drift", day) or {"verdict": Verdict.INSUFFICIENT_DATA}
    said = {
        check: {"verdict": result.verdict, "score": result.score, "pages": _pages(result, limits)}
        for check, result in found.items()
    }
    document = {
        "scores": highest(before["scores"], {result.name: result.score for result in found.values()}),
        "quiet": drift["verdict"] != Verdict.FAIL,
        "looks": [*before.get("looks", []), {"at": loop.now(), "decided": datetime.now(UTC), "found": said}],
    }
    write_window(loop.home.windows, "monitors", day, document)


def _pages(result: Any, limits: Mapping[str, float]) -> bool:
    """Whether a result may wake somebody."""
    return result.name in limits and result.verdict is Verdict.FAIL
