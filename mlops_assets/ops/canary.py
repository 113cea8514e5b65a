"""What a person may do with a canary: offer a version again, look at its rollout, stop it, have it promoted.

It asks the registry, the endpoint's guard and Dagster, each by its own door, and refuses with a reason what
their rules do not allow. Judging a canary is the guard's matter, showing one is `canary_view`'s.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlops_assets.release.state import Phase
from mlops_assets.resources.dagster_api import DagsterApi
from mlops_assets.resources.endpoint import Endpoint, EndpointUnavailable
from mlops_assets.resources.registry import OFFERED_TAG, Registry, Version
from mlops_assets.settings import Settings

NO_ROLLOUT = "none"
_FIT = (Phase.PROMOTING, Phase.SEALED, Phase.SUCCEEDED)
_GATE_EVIDENCE = "evidence.gate"


class CanaryRefused(ValueError):
    """What was asked for is against the rules of a release, or there is nothing to do it to; the message says why."""


@dataclass(frozen=True)
class Look:
    """One look at the newest rollout.

    Attributes:
        rollout: as `GET /models/{model}/rollout` describes it.
        at: seconds on the monotonic clock.
        trouble: why the endpoint did not answer this time, and `rollout` is an earlier one.
    """

    rollout: dict[str, Any]
    at: float
    trouble: str | None = None


def offer(settings: Settings, model: str, version: int) -> str:
    """Offer a registered version as candidate again and start its canary; returns the id of Dagster's run.

    Raises:
        CanaryRefused: it has no gate evidence, is in production, was stopped by a guard, or another one runs.
        UnknownVersion, RegistryUnavailable: the registry does not know it, or cannot be asked.
        DagsterUnavailable: nothing was changed, or the version waits as a candidate for the sensor.
    """
    registry = Registry(settings)
    found = registry.get(model, version)
    _require_startable(registry, found)
    dagster = DagsterApi(settings)
    dagster.unhealthy_daemons()  # before anything is changed: is it there?
    waiting = registry.by_alias(model, "candidate")
    again = int(found.tags.get(OFFERED_TAG, "0")) + 1
    registry.set_tags(model, version, {"rollout": "offered", "archived": "false", OFFERED_TAG: str(again)})
    expected = waiting.version if waiting else None
    registry.move_alias(model, "candidate", version, expected=expected, evidence_name="gate")
    return _launch(dagster, "start_canary", registry.get(model, version))


def rollout_of(settings: Settings, model: str) -> dict[str, Any]:
    """The newest rollout of a model, as the guard describes it.

    Raises:
        CanaryRefused: there was none yet.
        EndpointUnavailable, EndpointRefused: the endpoint does not answer, or knows no such model.
    """
    with Endpoint(settings) as endpoint:
        rollout = endpoint.rollout(model)
    if rollout["phase"] == NO_ROLLOUT:
        stable = rollout.get("production_version")
        answers = f"version {stable} answers everybody" if stable else "nor a production version"
        raise CanaryRefused(f"there is no rollout of {model} yet, {answers}; `mlops canary start VERSION` begins one")
    return rollout


def watch(settings: Settings, model: str, pause: float = 1.0) -> Iterator[Look]:
    """Looks at the newest rollout, one every `pause` seconds, until it is over.

    An endpoint that falls silent in between is told in `Look.trouble` and asked again.

    Raises:
        CanaryRefused, EndpointUnavailable, EndpointRefused: as `rollout_of`, at the first look.
    """
    rollout = rollout_of(settings, model)
    yield Look(rollout, time.monotonic())
    while not Phase(rollout["phase"]).is_terminal:
        time.sleep(pause)
        trouble = None
        try:
            rollout = rollout_of(settings, model)
        except EndpointUnavailable as error:
            trouble = str(error)
        yield Look(rollout, time.monotonic(), trouble)


def abort(settings: Settings, model: str, version: int, reason: str) -> str:
    """Stop the rollout of a version at once; returns what the guard said.

    Raises:
        CanaryRefused: no reason is given.
        EndpointUnavailable, EndpointRefused: the endpoint does not answer, or there is nothing to stop.
    """
    if not reason.strip():
        raise CanaryRefused("stopping a canary needs a reason (--reason): it stands in the evidence")
    with Endpoint(settings) as endpoint:
        return str(endpoint.abort(model, version, reason)["why"])


def promote(settings: Settings, model: str, version: int) -> str:
    """Seal a rollout that was judged fit, then have the graph promote it; returns the id of Dagster's run.

    Safe to repeat: a seal holds, and a run that is on its way is not joined by a second one.

    Raises:
        CanaryRefused: it is not judged fit (yet), or was stopped.
        EndpointUnavailable, EndpointRefused, DagsterUnavailable: one of them does not answer, or refuses.
    """
    rollout = rollout_of(settings, model)
    if rollout["version"] != version:
        raise CanaryRefused(f"the newest rollout of {model} is of version {rollout['version']}, not of {version}")
    if rollout["phase"] not in _FIT:
        why = f"it is {rollout['phase']}: {rollout['decision']['reason']}"
        raise CanaryRefused(f"version {version} of {model} is not promoted: {why}")
    dagster = DagsterApi(settings)
    dagster.unhealthy_daemons()  # nothing is sealed that nobody could promote
    with Endpoint(settings) as endpoint:
        answer = endpoint.seal(model, version)
    if answer["result"] != "sealed":  # a guard was faster
        raise CanaryRefused(f"version {version} of {model} is not promoted: {answer['why']}")
    return _launch(dagster, "promote", Registry(settings).get(model, version))


def _require_startable(registry: Registry, version: Version) -> None:
    """Refuse what the alias rules would not let pass, and what a guard has found bad already."""
    name = f"version {version.version} of {version.model}"
    if _GATE_EVIDENCE not in version.tags:
        raise CanaryRefused(
            f"{name} has no gate evidence: send it through the gate with `mlops submit`, or an "
            "MLflow model past it with `mlops register --waive`"
        )
    stable = registry.production(version.model)
    if stable is None:
        raise CanaryRefused(f"{version.model} has no production version: nothing to compare a canary with")
    if stable.version == version.version:
        raise CanaryRefused(f"{name} is in production")
    running = registry.by_alias(version.model, "canary")
    if running is not None:
        raise CanaryRefused(f"version {running.version} of {version.model} is in a canary; stop it or wait for it")
    stopped = _stopped_by_its_counts(registry, version)
    if stopped:
        raise CanaryRefused(
            f"{name} was stopped by what its canary showed ({stopped}); trying until it passes would make the "
            "guards' error rate a lie: train or submit a better one"
        )


def _stopped_by_its_counts(registry: Registry, version: Version) -> str | None:
    """Why a guard stopped the version's newest rollout; None where a person did, or time ran out, or nobody did."""
    if version.tags.get("rollout") != Phase.FAILED.value:
        return None
    document = registry.evidence(version.model, version.version).get("rollout", {})
    history = document.get("rollout", {}).get("history", [])
    return str(document["reason"]) if history and history[-1]["claims"] else None


def _launch(dagster: DagsterApi, step: str, version: Version) -> str:
    """Launch a step of the release as its sensor would, unless a run of it is on its way already."""
    from mlops_assets.lineage.loop import STEP_TAG
    from mlops_assets.lineage.release import step_label

    tags = {STEP_TAG: f"{version.model}:{step_label(step, version)}"}
    for run in dagster.runs(tags):
        if not run.finished:
            return run.run_id
    return dagster.launch(f"{version.model}_{step}", config={}, tags=tags)
