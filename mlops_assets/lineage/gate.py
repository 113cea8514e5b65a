"""The gate: a candidate is judged on rows that nobody trained on, beside the champion, and registered.

The judgement itself is `mlops_assets.release.gate`; an operator may let a failed candidate pass with a
recorded waiver, which stays on the version for ever.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from mlops_assets.data.snapshots import load_snapshot
from mlops_assets.data.split import TEST
from mlops_assets.data.tables import write_table
from mlops_assets.f1 import customer_numbers
from mlops_assets.lineage import measures
from mlops_assets.lineage.loop import Loop, check_result, markdown_table
from mlops_assets.storage import digest_file, digest_json, read_json, write_json
from mlops_assets.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mlops_assets.release.gate_inputs import Champion, ChampionUnavailable, FirstModel, GateDecision, GateInputs
    from mlops_assets.release.provable import Provable
    from mlops_assets.resources.registry import Registry, Version

STAGE = "release"


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
    )
    def evaluation(context: dg.AssetExecutionContext, config: Waived) -> dg.MaterializeResult:
        from mlops_assets.resources.tracking import Tracking

        evidence = _judge_candidate(loop, context, config)
        path = write_json(_evidence(loop, evidence["artefact_digest"], ".json"), evidence)
        decision = evidence["decision"]
        severity = dg.AssetCheckSeverity.WARN if decision["waiver"] else dg.AssetCheckSeverity.ERROR
        run_id = loop.require(context, "candidate", "mlflow_run_id")
        Tracking(loop.settings).opened(run_id, model=loop.model).log_metrics(
            {f"test_{name}": value for name, value in evidence["metrics"].items()}
        )
        return dg.MaterializeResult(
            metadata={
                **evidence["metrics"],
                "rows_demanded": evidence["rows_demanded"],
                "claims": _claims_table(decision["claims"]),
                "evidence": dg.MetadataValue.path(str(path)),
                "mlflow": dg.MetadataValue.url(f"{loop.settings.mlflow_url}/#/runs/{run_id}"),
            },
            check_results=[check_result("gate", Verdict(decision["verdict"]), decision["summary"], severity=severity)],
        )

    return evaluation


def _judge_candidate(loop: Loop, context: dg.AssetExecutionContext, config: Waived) -> dict[str, Any]:
    """The evidence of one gate decision: its inputs, all of them or by digest, the figures, and the decision."""
    from mlops_assets.monitoring.estimate import measure_calibration
    from mlops_assets.release.evidence import document_of, table_of
    from mlops_assets.release.gate import judge
    from mlops_assets.training.evaluation import evaluate

    candidate = loop.made(context, "candidate")
    digest = candidate["artefact_digest"]
    snapshot = load_snapshot(loop.home.snapshots, loop.require(context, "training_set", "snapshot_digest"))
    features = measures.read_features(loop.home, snapshot.digest)
    frame = measures.with_features(snapshot.read(), features)
    demanded = rows_demanded(loop, frame.filter(pl.col("part") == TEST), but=digest).message
    context.log.info(demanded)
    test, answer, inputs = _measure(loop, candidate, frame, snapshot.manifest, config)
    decision = judge(inputs, loop.spec.gate)
    _log(context, decision)
    files = (
        write_table(_evidence(loop, digest, ".rows.parquet"), table_of(inputs, test["message_id"].to_list())),
        write_table(_evidence(loop, digest, ".features.parquet"), features),  # a later join may know more
    )
    return {
        "model": loop.model,
        "at": loop.now(),
        "decided": datetime.now(UTC),
        "artefact_digest": digest,
        "snapshot_digest": snapshot.digest,
        "snapshot_manifest": snapshot.manifest,
        "spec_digest": digest_json(loop.spec),
        "spec": loop.spec.model_dump(mode="json"),
        "dagster_run_id": context.run.run_id,
        "retrain": candidate["decision"],
        "test_rows": test.height,
        "rows_demanded": demanded,
        "earlier_decisions": measures.earlier_decisions(loop.home, but=digest),
        "inputs": document_of(inputs),
        "files": {path.name: digest_file(path) for path in files},
        "metrics": evaluate(inputs.truth, answer, inputs.labels, customers=inputs.customers).metrics(),
        "calibration": measure_calibration(answer, inputs.truth).to_dict(),
        "decision": decision.to_dict(),
    }


def _measure(
    loop: Loop, candidate: dict[str, Any], frame: pl.DataFrame, manifest: Mapping[str, Any], config: Waived
) -> "tuple[pl.DataFrame, NDArray[np.float32], GateInputs]":
    """The test rows, the candidate's answers, and everything that is measured on them."""
    from mlops_assets.data.leak_search import find_leaks
    from mlops_assets.release.evidence import numbers_of
    from mlops_assets.release.gate_inputs import GateInputs, Waiver
    from mlops_assets.training.artefact import Predictor
    from mlops_assets.training.evaluation import measure_latencies

    spec, folder, digest = loop.spec, Path(candidate["artefact"]), candidate["artefact_digest"]
    test = frame.filter(pl.col("part") == TEST)
    as_served = Predictor.load(folder, expected_digest=digest)  # one thread, as in the endpoint
    features = measures.feature_matrix(as_served.feature_names, test)
    latencies = measure_latencies(as_served, test["text"].to_list(), features, spec.gate.max_latency_ms)
    test = measures.rows_to_judge(frame, latencies, spec)
    answer = measures.answers(Predictor.load(folder, expected_digest=digest, threads=2), test, spec.data.labels)
    champion, newest = _champion(loop, test)
    inputs = GateInputs(
        labels=spec.data.labels,
        truth=numbers_of(test["label"], spec.data.labels),
        predicted=answer.argmax(axis=1),
        champion=champion,
        newest=newest,
        customers=customer_numbers(test["customer_id"]),
        probabilities=answer,
        latencies_ms=latencies,
        leakage=find_leaks(frame, manifest, spec),
        earlier_uses=len(measures.earlier_decisions(loop.home, but=digest)),
        seed=spec.training.seed,
        waiver=Waiver.of(config.waiver_reason, config.waived_by),
    )
    return test, answer, inputs


def _evidence(loop: Loop, artefact_digest: str, suffix: str) -> Path:
    return loop.home.evidence / "gate" / f"{artefact_digest}{suffix}"


def _registered_version(loop: Loop) -> dg.AssetsDefinition:
    @dg.asset(
        **loop.describe(
            "registered_version",
            STAGE,
            "The candidate in the registry, with the gate's evidence, its feature service and the alias `candidate`.",
            deps=["evaluation"],
            kinds=["mlflow"],
        ),
    )
    def registered_version(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        candidate = loop.made(context, "candidate")
        evidence = read_json(_evidence(loop, candidate["artefact_digest"], ".json"))
        decision = evidence["decision"]
        if not decision["released"]:
            raise dg.Failure(f"not registered, the gate says {decision['summary']}", allow_retries=False)
        registry, gate = loop.registry(), "waived" if decision["waiver"] else "pass"
        tags = {"gate": gate, "dagster_run_id": context.run.run_id}
        version = _register(loop, registry, candidate, evidence, tags)
        service = loop.feature_store().register_service(loop.model, version.version, list(loop.spec.features.defaults))
        registry.set_tags(loop.model, version.version, {"feature_service": service})
        for name in evidence["files"]:
            registry.attach_file(loop.model, version.version, loop.home.evidence / "gate" / name)
        registry.attach_evidence(loop.model, version.version, "gate", evidence)
        registry.offer(loop.model, version.version)
        return dg.MaterializeResult(
            metadata={
                "version": version.version,
                "feature_service": service,
                "gate": gate,
                "mlflow": dg.MetadataValue.url(
                    f"{loop.settings.mlflow_url}/#/models/{loop.model}/versions/{version.version}"
                ),
            }
        )

    return registered_version


def _register(
    loop: Loop, registry: "Registry", candidate: dict[str, Any], evidence: dict[str, Any], tags: dict[str, str]
) -> "Version":
    """The candidate as a version that says where it comes from and how it was judged."""
    return registry.register(
        loop.model,
        candidate["mlflow_run_id"],
        candidate["model_uri"],
        candidate["artefact_digest"],
        f"F1 {evidence['metrics']['f1_weighted']:.4f} on {evidence['test_rows']} rows; "
        f"{evidence['decision']['summary']}",
        tags={
            **tags,
            "snapshot_digest": evidence["snapshot_digest"],
            "spec_digest": evidence["spec_digest"],
            "trained_until": candidate["trained_until"],
            "traffic_since": candidate["traffic_since"],
            "decision": candidate["decision"],
            "code_commit": candidate["code_commit"],
        },
    )


def _champion(loop: Loop, test: pl.DataFrame) -> "tuple[Champion | ChampionUnavailable | FirstModel, Any]":
    """The production version's answers, and which test rows are newer than its training data."""
    from mlops_assets.release.gate_inputs import Champion, ChampionUnavailable, FirstModel
    from mlops_assets.resources.predictors import load_predictor
    from mlops_assets.training.artefact import ArtefactError

    version = loop.registry().production(loop.model)
    if version is None:
        return FirstModel(), None
    newest = measures.newer_than(test, version.trained_until)
    try:
        predictor = load_predictor(
            version.artefact, version.artefact_digest, version.artefact_format, loop.spec, threads=2
        )
    except ArtefactError as error:
        return ChampionUnavailable(str(error)), newest
    answered = measures.answers(predictor, test, loop.spec.data.labels).argmax(axis=1)
    return Champion(str(version.version), answered, version.artefact_digest, version.trained_until.isoformat()), newest


def rows_demanded(loop: Loop, test: pl.DataFrame, but: str = "") -> "Provable":
    """Whether the test rows are enough for what the gate demands now, before any model is judged on them.

    `but` is the artefact digest of a candidate whose own use of the rows does not count.
    """
    champion = loop.registry().production(loop.model)
    until = champion.trained_until if champion else None
    return measures.provable_on(test, loop.spec, until, len(measures.earlier_decisions(loop.home, but)))


def _claims_table(claims: list[dict[str, Any]]) -> dg.MetadataValue:
    rows = []
    for c in claims:
        value, limit = (None if c[name] is None else f"{c[name]:.4g}" for name in ("value", "limit"))
        rows.append((c["name"], c["verdict"], value, limit, c["rows"], c["rows_needed"] or None, c["message"]))
    return markdown_table(("claim", "verdict", "value", "limit", "rows", "needed", ""), rows)


def _log(context: dg.AssetExecutionContext, decision: "GateDecision") -> None:
    for claim in decision.claims:
        context.log.info(f"{claim.verdict.value:18} {claim.name}: {claim.message}")
