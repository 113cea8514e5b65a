"""Release: the registered version goes through its canary into production, or is sent back.

The graph only starts and promotes; judging and stopping a canary is the guard's matter, inside the
endpoint. Each step looks at the registry and can be repeated from any state.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from mlops_assets.lineage.loop import Loop
from mlops_assets.monitoring.predictions import requests_per_second
from mlops_assets.resources.registry import OFFERED_TAG, SINCE_TAG, AliasConflict, Registry, Version

STAGE = "release"
APPROVAL = "release_approval"
# Of so many last approvals the one for the version in question is sought.
_APPROVALS = 100


def build(loop: Loop) -> dg.Definitions:
    """`canary` and `production`, what a person may add, their jobs, and the sensor that takes one step at a time."""
    start = dg.define_asset_job(loop.name("start_canary"), dg.AssetSelection.assets(loop.key("canary")))
    promote = dg.define_asset_job(loop.name("promote"), dg.AssetSelection.assets(loop.key("production")))
    return dg.Definitions(
        assets=[_canary(loop), *_approvals(loop), _production(loop)],
        jobs=[start, promote],
        sensors=[_rollout_sensor(loop, [start, promote])],
    )


def _canary(loop: Loop) -> dg.AssetsDefinition:
    @dg.asset(
        **loop.describe(
            "canary",
            STAGE,
            "The version that takes a share of live traffic beside the stable one. Materializing it moves the alias "
            "`canary`; the endpoint sees that, warms the version and begins to compare.",
            deps=["registered_version"],
            kinds=["rayserve", "mlflow"],
        )
    )
    def canary(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        registry = loop.registry()
        candidate = registry.by_alias(loop.model, "candidate")
        if candidate is None:
            raise dg.Failure(f"{loop.model} has no version with the alias `candidate`: train or submit one first")
        if candidate.sent_back:
            raise dg.Failure(_sent_back(candidate), allow_retries=False)
        stable = registry.production(loop.model)
        if stable is None:
            context.log.info("no production version yet: nothing to compare a canary with")
            return _shown(candidate, outcome="first version: no stable arm, goes to production directly")
        traffic = requests_per_second(loop.home.predictions, datetime.now(UTC))
        registry.set_tags(loop.model, candidate.version, {"requests_per_second": f"{traffic:.4g}"})
        registry.move_alias(loop.model, "canary", candidate.version, expected=None, evidence_name="gate")
        return _shown(candidate, outcome="canary started", against=stable.version, **_outlook(loop, traffic))

    return canary


def _outlook(loop: Loop, traffic: float) -> dict[str, Any]:
    """How long a verdict will take, said before it starts."""
    from mlops_assets.release.promotion import seconds_to_promotion

    policy = loop.spec.canary.scaled(loop.settings.canary_time_scale)
    minutes = seconds_to_promotion((), policy, 0.0, 0.0, traffic) / 60
    return {
        "requests_per_second": traffic,
        "expected_minutes_to_verdict": minutes,
        "minutes_at_most": policy.max_minutes + 60 * policy.ab_hours,
        "approval": policy.approval,
    }


def _approvals(loop: Loop) -> list[dg.AssetSpec]:
    """Where the policy asks for a person: the external asset by which they agree."""
    if not loop.spec.canary.asks_a_person:
        return []
    description = (
        "A person's word that a version which was judged fit, or whose A/B test is over, may go into production: "
        "`mlops approve VERSION --by NAME`, or a reported materialization with the metadata `version` and `by`."
    )
    return [dg.AssetSpec(**loop.describe(APPROVAL, STAGE, description, deps=["canary"]))]


def approval_of(loop: Loop, instance: dg.DagsterInstance, version: int) -> dict[str, str] | None:
    """Who agreed to exactly this version last, and when; None while nobody has."""
    for record in instance.fetch_materializations(loop.key(APPROVAL), limit=_APPROVALS).records:
        event = record.asset_materialization
        said = {name: value.value for name, value in event.metadata.items()} if event else {}
        if said.get("version") == version and said.get("by"):
            return {"by": str(said["by"]), "at": datetime.fromtimestamp(record.timestamp, UTC).isoformat()}
    return None


def _production(loop: Loop) -> dg.AssetsDefinition:
    @dg.asset(
        **loop.describe(
            "production",
            STAGE,
            "The version that answers. Materializing it seals the canary's verdict, then moves the alias "
            "`production` with that evidence; its reference profile takes effect with it.",
            deps=["canary", *(dg.AssetDep(spec.key) for spec in _approvals(loop))],
            kinds=["rayserve", "mlflow"],
            freshness_policy=dg.FreshnessPolicy.time_window(timedelta(days=loop.spec.retrain.max_age_days)),
        )
    )
    def production(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        registry = loop.registry()
        stable = registry.production(loop.model)
        canary = registry.by_alias(loop.model, "canary")
        if canary is None:
            return _without_canary(loop, registry, stable)
        if stable is None or stable.version != canary.version:
            approval = approval_of(loop, context.instance, canary.version)
            with loop.endpoint() as endpoint:
                answer = endpoint.seal(loop.model, canary.version, approval)
            if answer["result"] != "sealed":
                raise dg.Failure(f"version {canary.version} is not promoted: {answer['why']}", allow_retries=False)
            _promote(loop, registry, canary, stable)
            context.log.info(f"version {canary.version} is in production")
        _finish(loop, registry, canary)
        return _shown(canary, outcome="promoted", replaced=stable.version if stable else 0)

    return production


def _without_canary(loop: Loop, registry: Registry, stable: Version | None) -> dg.MaterializeResult:
    """The first version, a promotion that was cut short after its last move, or nothing to do."""
    candidate = registry.by_alias(loop.model, "candidate")
    if stable is not None and (candidate is None or candidate.version == stable.version):
        _finish(loop, registry, stable)
        return _shown(stable, outcome="in production: no canary is waiting")
    if candidate is None or stable is not None:
        raise dg.Failure(f"{loop.model}: there is no canary to promote")
    document = {"outcome": "first version", "reason": "no stable arm to compare with; released on the gate's evidence"}
    registry.attach_evidence(loop.model, candidate.version, "rollout", document)
    _promote(loop, registry, candidate, None)
    _finish(loop, registry, candidate)
    return _shown(candidate, outcome="first version in production")


def _promote(loop: Loop, registry: Registry, version: Version, stable: Version | None) -> None:
    registry.set_tags(loop.model, version.version, {SINCE_TAG: loop.now().isoformat()})
    registry.move_alias(
        loop.model,
        "production",
        version.version,
        expected=stable.version if stable else None,
        evidence_name="rollout",
    )


def _finish(loop: Loop, registry: Registry, version: Version) -> None:
    """What follows from `version` being in production; each move is a no-op where it was made already."""
    registry.set_tags(loop.model, version.version, {"rollout": "succeeded"})
    for earlier in registry.versions(loop.model):
        served = SINCE_TAG in earlier.tags and earlier.tags.get("archived") != "true"
        if served and earlier.version != version.version:
            tags = {"archived": "true", "production_until": loop.now().isoformat()}
            registry.set_tags(loop.model, earlier.version, tags)
    for alias in ("canary", "candidate"):
        holder = registry.by_alias(loop.model, alias)
        if holder is not None and holder.version == version.version:
            registry.drop_alias(loop.model, alias, expected=version.version)


def _rollout_sensor(loop: Loop, jobs: Sequence[Any]) -> dg.SensorDefinition:
    @dg.sensor(
        name=loop.name("rollout"),
        jobs=jobs,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes a release one step further: starts the canary of a new candidate, promotes a judged one.",
    )
    def rollout(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        step = next_step(loop, context.instance)
        if isinstance(step, str):
            return dg.SkipReason(step)
        name, version = step
        label = step_label(name, loop.registry().get(loop.model, version))
        return loop.step(context.instance, label, job_name=loop.name(name))

    return rollout


def step_label(name: str, version: Version) -> str:
    """What a step of a version's release is known by: one that was offered again goes through its steps anew."""
    again = version.tags.get(OFFERED_TAG)
    return f"{name}-v{version.version}" + (f"-again{again}" if again else "")


def next_step(loop: Loop, instance: dg.DagsterInstance) -> tuple[str, int] | str:
    """The step that the release waits for as (step, version), or why there is none.

    Reads only the registry, the endpoint and the approvals, so that it says the same after any crash.
    """
    registry = loop.registry()
    candidate = registry.by_alias(loop.model, "candidate")
    canary = registry.by_alias(loop.model, "canary")
    if canary is not None:
        return _next_of_canary(loop, instance, canary.version)
    if candidate is None:
        return "no candidate is waiting"
    if candidate.sent_back:
        return _sent_back(candidate)
    try:
        production = registry.production(loop.model)
    except AliasConflict as error:
        return str(error)
    if production is None or production.version == candidate.version:  # the latter: a promotion was cut short
        return "promote", candidate.version
    return "start_canary", candidate.version


def _sent_back(candidate: Version) -> str:
    again = f"`mlops canary start {candidate.version}` offers it again"
    return f"candidate {candidate.version} was sent back: {candidate.tags['rollout']}; {again}"


def _next_of_canary(loop: Loop, instance: dg.DagsterInstance, version: int) -> tuple[str, int] | str:
    with loop.endpoint() as endpoint:
        rollout = endpoint.rollout(loop.model)
    if rollout.get("version") != version:
        return f"version {version} waits for the endpoint to see it"
    if rollout["phase"] in ("promoting", "sealed", "succeeded"):
        return "promote", version
    if rollout["phase"] == "waiting_promotion":
        approval = approval_of(loop, instance, version)
        waits_since = datetime.fromisoformat(rollout["waits_since"])
        if approval is not None and datetime.fromisoformat(approval["at"]) >= waits_since:
            return "promote", version
    expected = rollout["decision"]["expected_seconds_to_verdict"]
    outlook = f"; a verdict is expected in about {expected / 60:.0f} minutes" if expected else ""
    return f"version {version} is being judged: {rollout['phase']}, {rollout['decision']['reason']}{outlook}"


def _shown(version: Version, **more: Any) -> dg.MaterializeResult:
    return dg.MaterializeResult(
        metadata={
            "version": version.version,
            "mlflow_run_id": version.run_id,
            "artefact_digest": version.artefact_digest,
            **more,
        }
    )
