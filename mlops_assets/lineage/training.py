"""Training: the snapshot of the day, its features, the search, and the exported candidate.

Wiring only: rows come from `mlops_assets.data`, the network and the search from `mlops_assets.training`,
the record of it goes to MLflow.
"""

import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from mlops_assets.data.snapshots import Snapshot, load_snapshot
from mlops_assets.data.split import TEST, TRAIN, VALIDATION, newest_held_out
from mlops_assets.lineage.gate import rows_demanded
from mlops_assets.lineage.loop import Loop, check_result
from mlops_assets.lineage.measures import feature_matrix, features_path, read_features, with_features
from mlops_assets.lineage.signals import CHAIN, DECISION_TAG, traffic_since
from mlops_assets.lineage.trial_log import TrialLog
from mlops_assets.spec import FEATURES
from mlops_assets.verdict import Verdict

if TYPE_CHECKING:
    from mlops_assets.resources.tracking import TrackedRun
    from mlops_assets.training.encoder import Encoder
    from mlops_assets.training.examples import Examples
    from mlops_assets.training.fit import Fitted
    from mlops_assets.training.quantization import Quantized

STAGE = "training"
_KEPT = timedelta(days=7)


class Source(dg.Config):
    """Where the candidate comes from: empty for the best trial, else the folder of an exported model."""

    artefact: str = ""


def build(loop: Loop) -> dg.Definitions:
    """`training_set` and `test_set`, `training_features`, `trials`, `candidate`, and the job that runs them all."""
    retrain = dg.define_asset_job(
        loop.name("retrain"),
        dg.AssetSelection.assets(*map(loop.key, CHAIN)),
        description="Trains, gates and registers, when the retrain policy asks for it, or by hand whatever it says.",
    )
    return dg.Definitions(
        assets=[_datasets(loop), _training_features(loop), _trials(loop), _candidate(loop)], jobs=[retrain]
    )


def _datasets(loop: Loop) -> dg.AssetsDefinition:
    leakage = dg.AssetCheckSpec(
        "leakage",
        asset=loop.key("test_set"),
        blocking=True,
        description="No test row repeats a training row, exactly or nearly.",
    )

    @dg.multi_asset(
        name=loop.name("datasets"),
        specs=_dataset_specs(loop),
        check_specs=[leakage],
    )
    def datasets(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        from mlops_assets.data.assembly import assemble

        made = assemble(loop.home, loop.spec.data, loop.now())
        since = traffic_since(loop, context.run.tags.get(DECISION_TAG, ""))
        demanded = rows_demanded(loop, made.snapshot.read().filter(pl.col("part") == TEST))
        (context.log.warning if demanded.wanting else context.log.info)(demanded.message)
        about: dict[str, Any] = {
            "snapshot_digest": made.snapshot.digest,
            "until": made.until.isoformat(),
            "traffic_since": since.isoformat() if since else "",
            "rows_demanded": demanded.message,
            "path": dg.MetadataValue.path(str(made.snapshot.path)),
        }
        learned = made.counts.get(TRAIN, 0) + made.counts.get(VALIDATION, 0)
        yield dg.MaterializeResult(
            asset_key=loop.key("training_set"),
            metadata={**about, "dagster/row_count": learned, "validation_rows": made.counts.get(VALIDATION, 0)},
        )
        left = made.remaining.summary()
        found = made.removed.summary()
        verdict = Verdict.PASS if left["exact"] == left["near"] == 0 else Verdict.FAIL
        message = (
            f"{found['exact']} exact and {found['near']} near repetitions were taken out of the test set; "
            f"{left['exact']} and {left['near']} remain"
        )
        yield dg.MaterializeResult(
            asset_key=loop.key("test_set"),
            metadata={**about, "dagster/row_count": made.counts.get(TEST, 0)},
            check_results=[check_result("leakage", verdict, message)],
        )

    return datasets


def _dataset_specs(loop: Loop) -> list[dg.AssetSpec]:
    sources: list[str | dg.AssetDep] = [
        "retrain_decision",  # is not read: it is why they are made
        loop.all_days("validated_messages"),
        loop.all_days("labelled_predictions"),
    ]
    described = {
        "training_set": "Every row whose label is known now, as an immutable snapshot: the rows to learn from.",
        "test_set": "Rows held out for ever: the time-later part of the first history, and a share of every later day.",
    }
    return [
        dg.AssetSpec(**loop.describe(name, STAGE, description, deps=sources, kinds=["polars", "parquet"]))
        for name, description in described.items()
    ]


def _training_features(loop: Loop) -> dg.AssetsDefinition:
    @dg.asset(
        **loop.describe(
            "training_features",
            STAGE,
            "Customer features of every row as they could be looked up when the message arrived.",
            deps=["training_set", "test_set", "customer_features"],
            kinds=["feast", "duckdb"],
        ),
    )
    def training_features(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        from mlops_assets.data.tables import write_table
        from mlops_assets.data.time_leak import KNOWN_AT, with_known_at

        snapshot = _snapshot(loop, context)
        names = list(FEATURES)  # a champion from before a change of the declaration asks for others
        rows = snapshot.read().select("message_id", "customer_id", "event_timestamp")
        store = loop.feature_store()
        before = store.offline_rows()
        joined = store.offline_join(rows, names)
        # a refresh may replace the rows meanwhile: the join saw either
        offline = pl.concat([before, store.offline_rows()]).unique()
        joined = with_known_at(joined, offline, names).select("message_id", *names, KNOWN_AT)
        write_table(features_path(loop.home, snapshot.digest), joined)
        known = joined.select(pl.any_horizontal(pl.col(names).is_not_null())).to_series().sum()
        return dg.MaterializeResult(metadata={"dagster/row_count": joined.height, "rows_with_features": int(known)})

    return training_features


def _trials(loop: Loop) -> dg.AssetsDefinition:
    @dg.asset(
        **loop.describe(
            "trials",
            STAGE,
            "The declared configurations, each a nested MLflow run; the best on the validation rows is exported.",
            deps=["training_features"],
            kinds=["torch", "huggingface", "mlflow"],
        ),
        pool="training",
    )
    def trials(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        from mlops_assets.resources.tracking import Tracking, run_identity
        from mlops_assets.training.encoder import resolve
        from mlops_assets.training.search import configurations, search

        tracking = Tracking(loop.settings)
        encoder = resolve(loop.spec.encoder)
        snapshot = _snapshot(loop, context)
        frame = with_features(snapshot.read(), read_features(loop.home, snapshot.digest))
        train, validation = _examples(loop, context, snapshot, frame, encoder)
        with tracking.run("training", run_identity(context), model=loop.model) as run:
            _log_inputs(loop, run, snapshot)
            with TrialLog(loop, context, tracking, run, validation) as log:
                found = search(
                    train,
                    validation,
                    configurations(loop.spec.training),
                    encoder,
                    len(loop.spec.data.labels),
                    on_epoch=log.epoch,
                    on_trial=log.trial,
                )
            run.log_params({**asdict(found.best.config), "best_trial": found.best.config.name})
            run.log_metrics({"f1_weighted": found.best.best.f1_weighted})
            folder = _export(loop, context, encoder, found.best, validation)
            exported = _shrink(loop, folder, frame.filter(pl.col("part") == TEST))
            run.log_params({"precision": exported.precision})
            run.log_metrics({"int8_agreement": exported.cost.agreement, "int8_f1_loss": exported.cost.f1_loss})
        return dg.MaterializeResult(
            metadata={
                "trials": len(found.outcomes),
                "best": found.best.config.name,
                "validation_f1_weighted": found.best.best.f1_weighted,
                "artefact": dg.MetadataValue.path(str(folder)),
                "artefact_digest": exported.digest,
                "precision": exported.precision,
                "int8_agreement": exported.cost.agreement,
                "mlflow_run_id": run.id,
                "mlflow": dg.MetadataValue.url(run.url),
            }
        )

    return trials


def _candidate(loop: Loop) -> dg.AssetsDefinition:
    @dg.asset(
        **loop.describe(
            "candidate",
            STAGE,
            "The exported model (ONNX) with its reference profile, logged to MLflow: the best trial, or a model from "
            "elsewhere.",
            deps=["trials"],
            kinds=["onnx", "mlflow"],
        ),
    )
    def candidate(context: dg.AssetExecutionContext, config: Source) -> dg.MaterializeResult:
        from mlops_assets.resources.tracking import Tracking, run_identity
        from mlops_assets.training.artefact import artefact_digest, read_manifest, require_declared

        snapshot = _snapshot(loop, context)
        source = Path(config.artefact or loop.require(context, "trials", "artefact"))
        require_declared(read_manifest(source), loop.spec.data.labels, loop.spec.features.defaults)
        digest = artefact_digest(source)
        folder = loop.home.candidates / digest
        if not (folder.exists() and folder.samefile(source)):
            shutil.copytree(source, folder, dirs_exist_ok=True)
        training = loop.made(context, "training_set")
        # what was trained elsewhere may never have seen the traffic since
        since = "" if config.artefact else training.get("traffic_since", "")
        held_out = _write_reference(loop, snapshot, folder, digest, datetime.fromisoformat(since) if since else None)
        # a trained candidate goes on in the MLflow run of its search
        name, asset = ("submitted", "candidate") if config.artefact else ("training", "trials")
        tags = run_identity(context, loop.key(asset))
        with Tracking(loop.settings).run(name, tags, model=loop.model) as run:
            run.log_spec(loop.spec)
            commit = run.log_environment()
            packed = run.log_model(folder, digest)
        _clear_away(loop, but={source, folder})
        return dg.MaterializeResult(
            metadata={
                "artefact": dg.MetadataValue.path(str(folder)),
                "artefact_digest": digest,
                "model_uri": packed.uri,
                "mlflow_run_id": run.id,
                "mlflow": dg.MetadataValue.url(run.url),
                "code_commit": commit,
                "trained_until": training["until"],
                "traffic_since": since,
                "decision": context.run.tags.get(DECISION_TAG, ""),  # none where a person asked for it
                "reference_rows": held_out,
            }
        )

    return candidate


def _clear_away(loop: Loop, but: Collection[Path]) -> None:
    """Remove the files of earlier candidates, which MLflow has too; those of a run beside this one are younger."""
    oldest = time.time() - _KEPT.total_seconds()
    for folder in (*loop.home.exports.glob("*"), *loop.home.candidates.glob("*")):
        if folder not in but and folder.stat().st_mtime < oldest:
            shutil.rmtree(folder)


def _snapshot(loop: Loop, context: dg.AssetExecutionContext) -> Snapshot:
    return load_snapshot(loop.home.snapshots, loop.require(context, "training_set", "snapshot_digest"))


def _examples(
    loop: Loop, context: dg.AssetExecutionContext, snapshot: Snapshot, frame: pl.DataFrame, encoder: "Encoder"
) -> tuple["Examples", "Examples"]:
    """The training and validation rows of a snapshot's frame with their embeddings, features and weights."""
    from dataclasses import replace

    from mlops_assets.training.embedding_cache import embed
    from mlops_assets.training.examples import from_frame, recency_weights

    spec = loop.spec.training
    until = datetime.fromisoformat(snapshot.manifest["until"])
    parts = []
    for part in (TRAIN, VALIDATION):
        rows = frame.filter(pl.col("part") == part)
        vectors = embed(
            rows["text"].to_list(),
            encoder,
            loop.home.embeddings,
            lambda done, all_of_them: context.log.info(f"embedded {done} of {all_of_them} new texts"),
        )
        examples = from_frame(rows, loop.spec.data.labels, loop.spec.features.defaults, vectors)
        weights = recency_weights(rows["event_timestamp"], until, spec.recent_days, spec.recent_weight)
        parts.append(replace(examples, weights=weights))
    return parts[0], parts[1]


def _log_inputs(loop: Loop, run: "TrackedRun", snapshot: Snapshot) -> None:
    from mlops_assets.resources.tracking import Dataset

    frame = snapshot.read()
    columns = {name: str(kind) for name, kind in frame.schema.items()}
    for part, context in ((TRAIN, "training"), (VALIDATION, "validation"), (TEST, "test")):
        rows = frame.filter(pl.col("part") == part).height
        run.log_dataset(Dataset(f"{loop.model}_{part}", snapshot.digest, snapshot.path, rows, columns, context))


def _export(
    loop: Loop, context: dg.AssetExecutionContext, encoder: "Encoder", best: "Fitted", validation: "Examples"
) -> Path:
    """The best trial as an exported folder, calibrated on the validation rows."""
    from mlops_assets.training.artefact import Manifest
    from mlops_assets.training.calibration import fit_temperature
    from mlops_assets.training.export import export_model
    from mlops_assets.training.network import Classifier

    manifest = Manifest(
        labels=loop.spec.data.labels,
        feature_defaults=loop.spec.features.defaults,
        max_tokens=loop.spec.encoder.max_tokens,
        temperature=fit_temperature(best.validation_logits, validation.labels),
        encoder=encoder.document(),
    )
    folder = loop.home.exports / (context.run.root_run_id or context.run.run_id)
    export_model(
        Classifier(best.encoder or encoder.load(), best.head),
        encoder.tokenizer_file,
        manifest,
        folder,
        validation.texts[:32],
    )
    return folder


def _shrink(loop: Loop, folder: Path, test: pl.DataFrame) -> "Quantized":
    """Make an exported folder small, if the test rows, which the gate will judge it on, are answered alike then."""
    from mlops_assets.release.evidence import numbers_of
    from mlops_assets.training.quantization import quantize

    features = feature_matrix(loop.spec.features.defaults, test)
    return quantize(folder, test["text"].to_list(), features, numbers_of(test["label"], loop.spec.data.labels))


def _write_reference(loop: Loop, snapshot: Snapshot, folder: Path, digest: str, since: datetime | None) -> int:
    """The profile of the newest rows that the model was not trained on; returns how many.

    `since`: when the traffic became what it is. Against what was before, or both mixed, the traffic that the model
    was trained for would go on drifting, and ask for one more retrain.
    """
    from mlops_assets.drift.observed import REFERENCE, observe
    from mlops_assets.drift.profile import build_profile
    from mlops_assets.training.artefact import Predictor

    drift = loop.spec.drift
    frame = with_features(snapshot.read(), read_features(loop.home, snapshot.digest))
    days = timedelta(days=drift.reference_days)
    newest = newest_held_out(frame, days, drift.reference_min_rows, since)
    predictor = Predictor.load(folder, expected_digest=digest, threads=2)
    window = observe(predictor, newest["text"].to_list(), newest, newest["customer_id"].to_list())
    profile = build_profile(
        window,
        labels=predictor.labels,
        embedding_rows=drift.mmd_rows,
        seed=loop.spec.training.seed,
        about={"snapshot_digest": snapshot.digest, "artefact_digest": digest},
    )
    profile.save(folder / REFERENCE)
    return newest.height
