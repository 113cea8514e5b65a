"""Quality: what is known of each day's answers, by their labels where these came and by their confidences before.

Wiring only: the figures are `mlops_assets.monitoring`'s. They are kept as one document a day, which the
monitors and the retrain policy read.
"""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from functools import lru_cache
from typing import Any

import dagster as dg
import polars as pl

from mlops_assets.data.ingest import day_file
from mlops_assets.lineage.drift import reference_version
from mlops_assets.lineage.loop import Loop, partition_days
from mlops_assets.monitoring.figures import quality_history
from mlops_assets.monitoring.windows import write_window

STAGE = "monitoring"
_SHOWN = ("f1_weighted", "accuracy")


def quality_asset(loop: Loop) -> dg.AssetsDefinition:
    """`quality`, a day at a time; recomputed as labels come back."""

    @dg.asset(
        **loop.describe(
            "quality",
            STAGE,
            "Weighted F1 and accuracy of a day: realised, from the labels known by now, and estimated from the "
            "confidences, with bounds. The estimate sees inputs change, not what they mean; its error says so later.",
            deps=["labelled_predictions"],
            kinds=["numpy"],
        ),
        partitions_def=loop.days,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def quality(context: dg.AssetExecutionContext) -> None:
        days = partition_days(context)
        promise = lru_cache(lambda version: loop.registry().evidence(loop.model, version)["gate"])
        for day in days:
            document = judge_day(loop, day, promise)
            shown = _figures(document) | (_history(loop, day) if day == days[-1] else {})
            context.add_asset_metadata(shown, partition_key=f"{day:%Y-%m-%d}")

    return quality


def judge_day(loop: Loop, day: datetime, promise: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """The quality document of one day; `promise` gives what the gate saw of the version that answered."""
    path = day_file(loop.home.labelled, day)
    document = _of_rows(loop, pl.read_parquet(path), promise) if path.exists() else _without_rows(loop)
    write_window(loop.home.windows, "quality", day, document)
    return document


def _of_rows(loop: Loop, rows: pl.DataFrame, promise: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    from mlops_assets.monitoring.monitors import f1_drop, not_judged
    from mlops_assets.monitoring.quality import realised

    version = reference_version(rows)
    gate = promise(version)
    own = rows.filter(pl.col("version") == version)  # what a canary answers is the rollout's to judge
    found = realised(own, as_of=loop.now(), seed=loop.spec.training.seed)
    promised = gate.get("metrics", {"f1_weighted": None, "accuracy": None})
    f1 = promised["f1_weighted"]
    judged = not_judged("f1", version) if f1 is None else f1_drop(found, f1, loop.spec.monitors)
    return {
        **asdict(found),
        **_estimated(loop, own, gate),
        "as_of": loop.now(),
        "reference_version": version,
        "promised_f1": f1,
        "promised_accuracy": promised["accuracy"],
        "verdict": judged.verdict,
        "message": judged.message,
    }


def _without_rows(loop: Loop) -> dict[str, Any]:
    from mlops_assets.monitoring.monitors import f1_drop
    from mlops_assets.monitoring.quality import Quality

    nothing = Quality(0, 0)
    judged = f1_drop(nothing, 0.0, loop.spec.monitors)
    return {
        **asdict(nothing),
        "estimate": None,
        "estimate_error": None,
        "as_of": loop.now(),
        "reference_version": None,
        "promised_f1": None,
        "promised_accuracy": None,
        "verdict": judged.verdict,
        "message": judged.message,
    }


def _estimated(loop: Loop, rows: pl.DataFrame, gate: dict[str, Any]) -> dict[str, Any]:
    """The estimate over the version's rows, and its error over those whose labels are known by now."""
    from mlops_assets.monitoring.estimate import Calibration, estimate, estimate_error
    from mlops_assets.monitoring.quality import realised

    if "calibration" not in gate:  # registered before it was measured: there is nothing to trust a confidence by
        return {"estimate": None, "estimate_error": None}
    calibration, seed = Calibration.from_dict(gate["calibration"]), loop.spec.training.seed
    known = rows.filter(pl.col("label").is_not_null())
    error = None
    if known.height:
        expected = estimate(_probabilities(known), calibration, seed=seed)
        error = asdict(estimate_error(expected, realised(known, as_of=loop.now(), seed=seed)))
    return {"estimate": asdict(estimate(_probabilities(rows), calibration, seed=seed)), "estimate_error": error}


def _probabilities(rows: pl.DataFrame) -> Any:
    """(n, labels), in the order in which the version knows its labels."""
    column = rows["probabilities"]
    return column.list.to_array(int(column.list.len()[0])).to_numpy()


def _figures(document: dict[str, Any]) -> dict[str, Any]:
    """What the asset shows of a day; a figure that is not known yet is left out."""
    expected, error = document["estimate"] or {}, document["estimate_error"] or {}
    figures = {
        **{name: document[name] for name in _SHOWN},
        **{f"estimated_{name}": expected.get(name) for name in (*_SHOWN, "f1_low", "f1_high")},
        "estimate_error": error.get("f1_weighted"),
    }
    known = {name: value for name, value in figures.items() if value is not None}
    return {**known, "labels": document["labels"], "verdict": str(document["verdict"])}


def _history(loop: Loop, day: datetime) -> dict[str, Any]:
    """The plot over the days, for the latest one alone: it shows them all."""
    return {"history": dg.MetadataValue.md(quality_history(loop.home.windows, day))}
