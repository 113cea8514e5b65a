"""Release: the registered version goes through its canary into production, or is sent back.

The graph only starts and promotes; judging and stopping a canary is the guard's matter, inside the
endpoint. Each step looks at the registry and can be repeated from any state.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from mlops_assets.lineage.loop import Loop
from mlops_assets.resources.registry import Registry, Version

STAGE = "release"


def build(loop: Loop) -> dg.Definitions:
    """`canary` and `production`, their jobs, and the sensor that takes one step at a time."""
    start = dg.define_asset_job(loop.name("start_canary"), dg.AssetSelection.assets(loop.key("canary")))
    promote = dg.define_asset_job(loop.name("promote"), dg.AssetSelection.assets(loop.key("production")))
    return dg.Definitions(
        assets=[_canary(loop), _production(loop)],
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
        stable = registry.by_alias(loop.model, "production")
        if stable is None:
            context.log.info("no production version yet: nothing to compare a canary with")
            return _shown(candidate, outcome="first version: no stable arm, goes to production directly")
        registry.move_alias(loop.model, "canary", candidate.version, expected=None, evidence_name="gate")
        return _shown(candidate, outcome="canary started", against=stable.version)

    return canary


def _production(loop: Loop) -> dg.AssetsDefinition:
    @dg.asset(
        **loop.describe(
            "production",
            STAGE,
            "The version that answers. Materializing it seals the canary's verdict, then moves the alias "
            "`production` with that evidence; its reference profile takes effect with it.",
            deps=["canary"],
            kinds=["rayserve", "mlflow"],
            freshness_policy=dg.FreshnessPolicy.time_window(timedelta(days=loop.spec.retrain.max_age_days)),
        )
    )
    def production(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        registry = loop.registry()
        stable = registry.by_alias(loop.model, "production")
        canary = registry.by_alias(loop.model, "canary")
        if canary is None:
            return _without_canary(loop, registry, stable)
        if stable is None or stable.version != canary.version:
            answer = loop.endpoint().seal(loop.model, canary.version)
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
    registry.set_tags(loop.model, version.version, {"production_since": loop.now().isoformat()})
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
        served = "production_since" in earlier.tags and "archived" not in earlier.tags
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
        step = next_step(loop)
        if isinstance(step, str):
            return dg.SkipReason(step)
        name, version = step
        return loop.step(context.instance, f"{name}-v{version}", job_name=loop.name(name))

    return rollout


def next_step(loop: Loop) -> tuple[str, int] | str:
    """The step that the release waits for as (step, version), or why there is none.

    Reads only the registry and the endpoint, so that it says the same after any crash.
    """
    registry = loop.registry()
    candidate = registry.by_alias(loop.model, "candidate")
    canary = registry.by_alias(loop.model, "canary")
    if canary is not None:
        rollout = loop.endpoint().rollout(loop.model)
        if rollout["version"] == canary.version and rollout["phase"] in ("promoting", "sealed", "succeeded"):
            return "promote", canary.version
        return f"version {canary.version} is being judged: {rollout['phase']}, {rollout['reason']}"
    if candidate is None:
        return "no candidate is waiting"
    if candidate.tags.get("rollout") in ("failed", "inconclusive"):
        return f"candidate {candidate.version} was sent back: {candidate.tags['rollout']}"
    production = registry.by_alias(loop.model, "production")
    if production is None or production.version == candidate.version:  # the latter: a promotion was cut short
        return "promote", candidate.version
    return "start_canary", candidate.version


def _shown(version: Version, **more: Any) -> dg.MaterializeResult:
    return dg.MaterializeResult(
        metadata={
            "version": version.version,
            "mlflow_run_id": version.run_id,
            "artefact_digest": version.artefact_digest,
            **more,
        }
    )
