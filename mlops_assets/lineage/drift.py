"""Drift: each day's traffic against the reference of the version that answered it.

Wiring only: the statistics and their verdict are `mlops_assets.drift`. The reference comes from the
registry with the version, so that it changes together with the alias, and a backfill of an old day is
judged as that day was.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import dagster as dg
import polars as pl

from mlops_assets.data.ingest import day_file
from mlops_assets.lineage.loop import Loop, check_result, markdown_table, partition_days
from mlops_assets.monitoring.predictions import served_features
from mlops_assets.monitoring.windows import latest_windows, read_window, read_windows, write_window
from mlops_assets.storage import digest_json
from mlops_assets.verdict import Verdict

STAGE = "monitoring"
GROUPS = {
    "feature": ("feature_drift", "Customer features and text length", ["scipy"]),
    "prediction": ("prediction_drift", "Softmax outputs (black-box shift detection) and the label mix", ["scipy"]),
    "embedding": ("embedding_drift", "Sentence embeddings, by unbiased MMD with permutations", ["scipy"]),
}


def build(loop: Loop) -> dg.Definitions:
    """`feature_drift`, `prediction_drift` and `embedding_drift`, one window a day, judged together."""
    return dg.Definitions(assets=[_drift(loop)])


def _drift(loop: Loop) -> dg.AssetsDefinition:
    specs = [
        dg.AssetSpec(
            **loop.describe(
                asset,
                STAGE,
                f"{what} of a day against the production version's reference.",
                kinds=kinds,
                deps=["labelled_predictions"],
            ),
            partitions_def=loop.days,
        )
        for asset, what, kinds in GROUPS.values()
    ]
    checks = [
        dg.AssetCheckSpec("quiet", asset=spec.key, description="The latest day did not drift. A warning, not a gate.")
        for spec in specs
    ]

    @dg.multi_asset(
        name=loop.name("drift"),
        specs=specs,
        check_specs=checks,
        partitions_def=loop.days,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def drift(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        windows = {day: judge_day(loop, day) for day in partition_days(context)}
        for group, (asset, _, _) in GROUPS.items():
            key = loop.key(asset)
            for day, window in windows.items():
                shown = _figures(window, group) | (_history(loop, group, day) if day == max(windows) else {})
                shown |= _report(loop, day)
                context.add_asset_metadata(shown, asset_key=key, partition_key=f"{day:%Y-%m-%d}")
            yield dg.MaterializeResult(asset_key=key, check_results=[_latest_check(loop, group, key)])

    return drift


def judge_day(loop: Loop, day: datetime) -> dict[str, Any]:
    """The window document of one day; computed once for the same rows and reference."""
    path = day_file(loop.home.labelled, day)
    if not path.exists():
        return _keep(loop, day, _silent("no predictions on this day"))
    rows = pl.read_parquet(path)
    version = reference_version(rows)
    inputs = digest_json([sorted(rows["message_id"]), version, loop.spec.drift])
    known = read_window(loop.home.windows, "drift", day)
    if known is not None and known["inputs"] == inputs:
        return known
    return _keep(loop, day, {"inputs": inputs, **_judge(loop, day, rows, version)})


def reference_version(rows: pl.DataFrame) -> int:
    """The version that was stable at the end of the window; its reference judges all of it."""
    stable = rows.filter(pl.col("arm") == "stable")
    return int((stable if stable.height else rows).sort("received_at")["version"][-1])


def _keep(loop: Loop, day: datetime, document: dict[str, Any]) -> dict[str, Any]:
    write_window(loop.home.windows, "drift", day, document)
    found = read_window(loop.home.windows, "drift", day)
    assert found is not None
    return found


def _judge(loop: Loop, day: datetime, rows: pl.DataFrame, version: int) -> dict[str, Any]:
    from mlops_assets.drift.observed import REFERENCE, observe
    from mlops_assets.drift.profile import ReferenceProfile
    from mlops_assets.drift.window import judge_window
    from mlops_assets.report.drift_page import write_day_page
    from mlops_assets.training.artefact import Predictor

    registered = loop.registry().get(loop.model, version)
    if registered.artefact_format != "export":
        return _silent(f"version {version} is an MLflow model of another make: it has no reference profile")
    predictor = Predictor.load(registered.artefact, expected_digest=registered.artefact_digest)
    profile = ReferenceProfile.load(registered.artefact / REFERENCE)
    features = _looked_up(rows, predictor.feature_names)
    window = observe(predictor, rows["text"].to_list(), features, rows["customer_id"].to_list())
    drift = judge_window(profile, window, loop.spec.drift, seed=loop.spec.training.seed)
    before = read_windows(loop.home.windows, "drift")
    write_day_page(loop.home, day, profile, window, drift, loop.spec.drift, before)
    return {
        "verdict": drift.verdict,
        "reference_version": version,
        "rows": drift.rows,
        "summary": drift.summary(),
        "groups": {
            name: {"verdict": group.verdict, "alpha": group.alpha, "results": group.results}
            for name, group in drift.groups.items()
        },
    }


def _looked_up(rows: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The features that were looked up; null where a default stood in, as in the reference."""
    online = rows["features_source"] == "online"
    return served_features(rows, names).select(pl.when(online).then(pl.col(name)).alias(name) for name in names)


def _silent(why: str) -> dict[str, Any]:
    quiet = {name: {"verdict": Verdict.INSUFFICIENT_DATA, "alpha": 0.0, "results": []} for name in GROUPS}
    return {
        "inputs": "",
        "verdict": Verdict.INSUFFICIENT_DATA,
        "reference_version": None,
        "rows": 0,
        "summary": why,
        "groups": quiet,
    }


def _history(loop: Loop, group: str, day: datetime) -> dict[str, Any]:
    """The plot over the days, for the latest one alone: it shows them all."""
    from mlops_assets.monitoring.figures import drift_history

    return {"history": dg.MetadataValue.md(drift_history(loop.home.windows, group, day))}


def _report(loop: Loop, day: datetime) -> dict[str, Any]:
    """The page that shows this day; one without predictions has none."""
    from mlops_assets.report.drift_page import day_page

    page = day_page(loop.home, f"{day:%Y-%m-%d}")
    return {"report": dg.MetadataValue.path(str(page))} if page.exists() else {}


def _figures(window: dict[str, Any], group: str) -> dict[str, Any]:
    found = window["groups"].get(group, {"verdict": Verdict.ERROR.value, "results": []})
    effects = [result["effect"] for result in found["results"] if result["effect"] is not None]
    rows = []
    for r in found["results"]:
        figures = (None if r[f] is None else f"{r[f]:.3g}" for f in ("statistic", "p_value", "effect"))
        rows.append((r["column"], r["statistic_name"], *figures, r["verdict"]))
    return {
        "rows": window["rows"],
        "verdict": found["verdict"],
        "largest_effect": max(effects, default=0.0),
        "reference_version": window["reference_version"] or 0,
        "statistics": markdown_table(("column", "statistic", "value", "p", "effect", "verdict"), rows),
    }


def _latest_check(loop: Loop, group: str, key: dg.AssetKey) -> dg.AssetCheckResult:
    """Of the latest day of all, also where an earlier one is made again."""
    (window,) = latest_windows(loop.home.windows, "drift", 1)
    found = window["groups"].get(group, {"verdict": Verdict.ERROR.value})
    return check_result(
        "quiet",
        Verdict(found["verdict"]),
        f"{window['day']}: {window['summary']}",
        asset=key,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"day": window["day"]},
    )
