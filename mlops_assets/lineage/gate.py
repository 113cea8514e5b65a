"""The gate: a candidate is judged on rows that nobody trained on, beside the champion, and registered.

The judgement itself is `mlops_assets.release.gate`; an operator may let a failed candidate pass with a
recorded waiver, which stays on the version for ever.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from mlops_assets.data.snapshots import load_snapshot
from mlops_assets.data.split import TEST
from mlops_assets.lineage.loop import Loop, check_result
from mlops_assets.storage import digest_json, read_json, write_json
from mlops_assets.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mlops_assets.release.gate_inputs import Champion, ChampionUnavailable, FirstModel, GateDecision
    from mlops_assets.training.artefact import Predictor

STAGE = "release"
HOPELESS_ROWS = 100  # a slow model would take minutes over the whole test set, to fail all the same


class Waived(dg.Config):
    """Why a candidate that fails the gate may still go on. Both fields are needed; both are recorded."""

    waiver_reason: str = ""
    waived_by: str = ""


def build(loop: Loop) -> dg.Definitions:
    """`evaluation` with its blocking check, `registered_version`, and the job for a model built elsewhere."""
    submit = dg.define_asset_job(
        loop.name("submit"),
        dg.AssetSelection.assets(*(loop.key(name) for name in ("candidate", "evaluation", "registered_version"))),
        description="Judges and registers a model that was built elsewhere: give `candidate` its folder.",
    )
    return dg.Definitions(assets=[_evaluation(loop), _registered_version(loop)], jobs=[submit])


def _evaluation(loop: Loop) -> dg.AssetsDefinition:
    gate = dg.AssetCheckSpec(
        "gate",
        asset=loop.key("evaluation"),
        blocking=True,
        description=f"Weighted F1 above {loop.spec.gate.min_f1:g} by its lower bound, no loss against the champion, "
        f"latency within {loop.spec.gate.max_latency_ms:g} ms, no leakage, calibrated.",
    )

    @dg.asset(
        **loop.describe(
            "evaluation",
            STAGE,
            "The candidate on the test rows, beside the champion on the same rows: claims with bounds, limits and "
            "the rows they need.",
            deps=["candidate", "test_set", "training_features"],
            kinds=["onnx", "numpy"],
        ),
        check_specs=[gate],
        automation_condition=loop.along(),
    )
    def evaluation(context: dg.AssetExecutionContext, config: Waived) -> dg.MaterializeResult:
        from mlops_assets.resources.tracking import Tracking

        digest = loop.require(context.instance, "candidate", "artefact_digest")
        evidence = _judge_candidate(loop, context, config)
        path = write_json(loop.home.evidence / "gate" / f"{digest}.json", evidence)
        decision = evidence["decision"]
        severity = dg.AssetCheckSeverity.WARN if decision["waiver"] else dg.AssetCheckSeverity.ERROR
        run_id = loop.require(context.instance, "candidate", "mlflow_run_id")
        Tracking.of(loop.settings).opened(run_id, model=loop.model).log_metrics(
            {f"test_{name}": value for name, value in evidence["metrics"].items()}
        )
        return dg.MaterializeResult(
            metadata={
                **evidence["metrics"],
                "claims": dg.MetadataValue.md(_claims_table(decision["claims"])),
                "evidence": dg.MetadataValue.path(str(path)),
                "mlflow": dg.MetadataValue.url(f"{loop.settings.mlflow_url}/#/runs/{run_id}"),
            },
            check_results=[check_result("gate", Verdict(decision["verdict"]), decision["summary"], severity=severity)],
        )

    return evaluation


def _judge_candidate(loop: Loop, context: dg.AssetExecutionContext, config: Waived) -> dict[str, Any]:
    """The evidence of one gate decision: its inputs by digest, the figures, and the decision."""
    import numpy as np

    from mlops_assets.data.leak_search import find_leaks
    from mlops_assets.release.gate import GateInputs, Waiver, judge
    from mlops_assets.training.artefact import Predictor
    from mlops_assets.training.evaluation import evaluate, measure_latencies

    candidate = loop.latest(context.instance, "candidate") or {}
    snapshot = load_snapshot(loop.home.snapshots, loop.require(context.instance, "training_set", "snapshot_digest"))
    frame = with_features(loop, snapshot.digest, snapshot.read())
    test = frame.filter(pl.col("part") == TEST)
    folder, digest = Path(candidate["artefact"]), candidate["artefact_digest"]
    as_served = Predictor.load(folder, expected_digest=digest)  # one thread, as in the endpoint
    latencies = measure_latencies(
        as_served, test["text"].to_list(), feature_rows(as_served, test), loop.spec.gate.max_latency_ms
    )
    test = _rows_worth_judging(loop, test, latencies)
    predictor = Predictor.load(folder, expected_digest=digest, threads=2)
    labels = loop.spec.data.labels
    truth = np.array([labels.index(label) for label in test["label"]])
    answer = answers(predictor, test, labels)
    champion, newest = _champion(loop, test)
    inputs = GateInputs(
        labels=labels,
        truth=truth,
        predicted=answer.argmax(axis=1),
        champion=champion,
        newest=newest,
        probabilities=answer,
        latencies_ms=latencies,
        leakage=find_leaks(frame, snapshot.manifest, loop.spec),
        earlier_uses=_earlier_uses(loop, candidate["artefact_digest"]),
        seed=loop.spec.training.seed,
        waiver=Waiver(config.waiver_reason, config.waived_by) if config.waiver_reason else None,
    )
    decision = judge(inputs, loop.spec.gate)
    _log(context, decision)
    return {
        "model": loop.model,
        "artefact_digest": candidate["artefact_digest"],
        "snapshot_digest": snapshot.digest,
        "spec_digest": digest_json(loop.spec),
        "dagster_run_id": context.run_id,
        "retrain": candidate["decision"],
        "test_rows": test.height,
        "earlier_uses": inputs.earlier_uses,
        "champion": getattr(champion, "version", None),
        "metrics": evaluate(truth, answer, labels).metrics(),
        "decision": decision.to_dict(),
    }


def _rows_worth_judging(loop: Loop, test: pl.DataFrame, latencies: "NDArray[np.float64]") -> pl.DataFrame:
    """All test rows; for a candidate that its latency alone already fails, a few that show what it is like."""
    gate = loop.spec.gate
    hopeless = (latencies > gate.max_latency_ms).mean() > 10 * (1 - gate.latency_percentile)
    if not hopeless or test.height <= HOPELESS_ROWS:
        return test
    return test.sample(HOPELESS_ROWS, seed=loop.spec.training.seed)


def _registered_version(loop: Loop) -> dg.AssetsDefinition:
    @dg.asset(
        **loop.describe(
            "registered_version",
            STAGE,
            "The candidate in the registry, with the gate's evidence, its feature service and the alias `candidate`.",
            deps=["evaluation"],
            kinds=["mlflow"],
        ),
        automation_condition=loop.along(),
    )
    def registered_version(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        candidate = loop.latest(context.instance, "candidate") or {}
        digest = candidate["artefact_digest"]
        evidence = read_json(loop.home.evidence / "gate" / f"{digest}.json")
        decision = evidence["decision"]
        if not decision["released"]:
            raise dg.Failure(f"not registered, the gate says {decision['summary']}", allow_retries=False)
        registry = loop.registry()
        version = registry.register(
            loop.model,
            candidate["mlflow_run_id"],
            candidate["model_uri"],
            digest,
            f"F1 {evidence['metrics']['f1_weighted']:.4f} on {evidence['test_rows']} rows; {decision['summary']}",
            tags={
                "gate": "waived" if decision["waiver"] else "pass",
                "dagster_run_id": context.run_id,
                "snapshot_digest": evidence["snapshot_digest"],
                "spec_digest": evidence["spec_digest"],
                "trained_until": candidate["trained_until"],
                "decision": candidate["decision"],
                "code_commit": candidate["code_commit"],
            },
        )
        service = loop.feature_store().register_service(loop.model, version.version, list(loop.spec.features.defaults))
        registry.set_tags(loop.model, version.version, {"feature_service": service})
        registry.attach_evidence(loop.model, version.version, "gate", evidence)
        waiting = registry.by_alias(loop.model, "candidate")
        registry.move_alias(
            loop.model,
            "candidate",
            version.version,
            expected=waiting.version if waiting else None,
            evidence_name="gate",
        )
        return dg.MaterializeResult(
            metadata={
                "version": version.version,
                "feature_service": service,
                "gate": "waived" if decision["waiver"] else "pass",
                "mlflow": dg.MetadataValue.url(
                    f"{loop.settings.mlflow_url}/#/models/{loop.model}/versions/{version.version}"
                ),
            }
        )

    return registered_version


def with_features(loop: Loop, snapshot_digest: str, frame: pl.DataFrame) -> pl.DataFrame:
    """A snapshot's rows with their point-in-time features.

    Raises:
        dg.Failure: the features of this snapshot were not joined yet.
    """
    path = loop.home.snapshots / "features" / f"{snapshot_digest}.parquet"
    if not path.exists():
        raise dg.Failure(f"the features of snapshot {snapshot_digest[:12]} are missing: materialize training_features")
    return frame.join(pl.read_parquet(path), on="message_id", how="left", maintain_order="left")


def feature_rows(predictor: "Predictor", rows: pl.DataFrame) -> Any:
    """The predictor's feature matrix (n, f) of some rows; null stays NaN, for which it has defaults."""
    return predictor.feature_rows(rows.select(predictor.feature_names).to_dicts())


def answers(predictor: "Predictor", rows: pl.DataFrame, labels: tuple[str, ...]) -> Any:
    """Probabilities (n, labels) with the columns in the order of the declared `labels`."""
    found = predictor.predict(rows["text"].to_list(), feature_rows(predictor, rows)).probabilities
    return found[:, [predictor.labels.index(label) for label in labels]]


def _champion(loop: Loop, test: pl.DataFrame) -> "tuple[Champion | ChampionUnavailable | FirstModel, Any]":
    """The production version's answers, and which test rows are newer than its training data."""
    from mlops_assets.release.gate import Champion, ChampionUnavailable, FirstModel
    from mlops_assets.training.artefact import ArtefactError, Predictor

    version = loop.registry().by_alias(loop.model, "production")
    if version is None:
        return FirstModel(), None
    until = pl.lit(version.tags["trained_until"]).str.to_datetime("%+", time_zone="UTC", time_unit="us")
    newest = test.select(pl.col("event_timestamp") > until).to_series().to_numpy()
    try:
        predictor = Predictor.load(version.artefact, expected_digest=version.artefact_digest, threads=2)
    except ArtefactError as error:
        return ChampionUnavailable(str(error)), newest
    return Champion(str(version.version), answers(predictor, test, loop.spec.data.labels).argmax(axis=1)), newest


def _earlier_uses(loop: Loop, artefact_digest: str) -> int:
    """How many other candidates were judged on this model's test rows; each look wears them out."""
    return sum(path.stem != artefact_digest for path in (loop.home.evidence / "gate").glob("*.json"))


def _claims_table(claims: list[dict[str, Any]]) -> str:
    lines = ["| claim | verdict | value | limit | rows | needed | |", "|---|---|---|---|---|---|---|"]
    for claim in claims:
        value, limit = ("" if claim[name] is None else f"{claim[name]:.4g}" for name in ("value", "limit"))
        lines.append(
            f"| {claim['name']} | {claim['verdict']} | {value} | {limit} | {claim['rows']} "
            f"| {claim['rows_needed'] or ''} | {claim['message']} |"
        )
    return "\n".join(lines)


def _log(context: dg.AssetExecutionContext, decision: "GateDecision") -> None:
    for claim in decision.claims:
        context.log.info(f"{claim.verdict.value:18} {claim.name}: {claim.message}")
