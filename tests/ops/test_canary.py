"""What a person may do with a canary, and what is refused, with its reason."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_assets.ops.canary import CanaryRefused, abort, offer, promote, rollout_of, watch
from mlops_assets.ports import free_port
from mlops_assets.resources.dagster_api import DagsterApi, DagsterUnavailable
from mlops_assets.resources.endpoint import EndpointUnavailable
from mlops_assets.resources.registry import Registry, UnknownVersion
from mlops_assets.settings import Settings
from tests.lineage.guard import Rollout, served
from tests.resources.webserver import webserver
from tests.serving.factories import MODEL, register, write_artefact
from tests.serving.world import wait_until

pytestmark = pytest.mark.slow  # a registry and a guard

LAUNCHED_AT_ONCE = """
telemetry: {enabled: false}
run_coordinator: {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}
"""
STOPPED = {"reason": "guard.failures: 9 of 40", "rollout": {"history": [{"claims": [{"name": "guard.failures"}]}]}}
BY_HAND = {"reason": "stopped by hand: lunch", "rollout": {"history": [{"claims": []}]}}


@pytest.fixture
def registry(tmp_path: Path, mlflow_schema: Path) -> Registry:
    shutil.copytree(mlflow_schema, tmp_path / "mlflow")
    return Registry(Settings(home=tmp_path, dagster_port=free_port(), _env_file=None))


@pytest.fixture
def guard(registry: Registry) -> Rollout:
    return Rollout(registry, MODEL, version=2, phase="progressing", reason="3 of 30 minutes")


@pytest.fixture
def settings(guard: Rollout) -> Iterator[Settings]:
    """An endpoint that answers, and no Dagster."""
    with served(guard) as port:
        yield guard.registry.settings.model_copy(update={"serve_port": port})


def published(registry: Registry, label: str, alias: str = "production") -> int:
    folder = registry.settings.home / "exports" / label
    return register(registry, folder, write_artefact(folder, label), alias=alias).version


def waiting(registry: Registry, label: str, gate: str = "gate") -> int:
    """A registered version without an alias, with this evidence."""
    folder = registry.settings.home / "exports" / label
    version = registry.register(MODEL, None, folder, write_artefact(folder, label), "tiny", {}).version
    registry.attach_evidence(MODEL, version, gate, {"verdict": "pass"})
    return version


def holder(registry: Registry, alias: str) -> int | None:
    version = registry.by_alias(MODEL, alias)
    return version.version if version else None


@pytest.mark.slow  # MLflow
def test_a_version_is_not_offered_against_the_rules_and_the_reason_is_told(registry: Registry) -> None:
    settings = registry.settings
    with pytest.raises(UnknownVersion, match="no version 9"):
        offer(settings, MODEL, 9)
    ungated, gated = waiting(registry, "other", gate="hearsay"), waiting(registry, "query")
    with pytest.raises(CanaryRefused, match="has no gate evidence"):
        offer(settings, MODEL, ungated)
    with pytest.raises(CanaryRefused, match="no production version"):
        offer(settings, MODEL, gated)
    stable = published(registry, "refund")
    with pytest.raises(CanaryRefused, match=f"version {stable} of {MODEL} is in production"):
        offer(settings, MODEL, stable)
    running = published(registry, "greeting", "canary")
    with pytest.raises(CanaryRefused, match=f"version {running} of {MODEL} is in a canary"):
        offer(settings, MODEL, gated)


@pytest.mark.slow
def test_what_a_guard_has_stopped_is_not_tried_until_it_passes(registry: Registry) -> None:
    published(registry, "refund")
    version = waiting(registry, "query")
    registry.set_tags(MODEL, version, {"rollout": "failed", "archived": "true"})
    registry.attach_evidence(MODEL, version, "rollout", STOPPED)
    with pytest.raises(CanaryRefused, match="was stopped by what its canary showed"):
        offer(registry.settings, MODEL, version)
    registry.attach_evidence(MODEL, version, "rollout", BY_HAND)
    with pytest.raises(DagsterUnavailable):  # the next thing that is asked
        offer(registry.settings, MODEL, version)
    assert registry.by_alias(MODEL, "candidate") is None


@pytest.mark.slow
def test_a_version_that_is_offered_again_gets_its_canary_and_is_promoted_once_fit(
    settings: Settings, guard: Rollout, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = guard.registry
    published(registry, "refund")
    guard.version = version = waiting(registry, "query")
    registry.set_tags(MODEL, version, {"rollout": "inconclusive", "archived": "true"})
    (settings.home / "dagster.yaml").write_text(LAUNCHED_AT_ONCE)
    monkeypatch.setenv("MLOPS_SERVE_PORT", str(settings.serve_port))  # for the runs
    with webserver(settings):
        run = offer(settings, MODEL, version)
        (found,) = DagsterApi(settings).runs({"mlops/step": f"{MODEL}:start_canary-v{version}-again1"})
        assert (found.run_id, found.job) == (run, f"{MODEL}_start_canary")
        wait_until(lambda: registry.by_alias(MODEL, "canary"), 120)
        tags = registry.get(MODEL, version).tags
        assert (tags["rollout"], tags["archived"]) == ("offered", "false")

        guard.phase = "promoting"
        assert promote(settings, MODEL, version) != run
        wait_until(lambda: holder(registry, "production") == version, 120)


def test_a_rollout_is_not_promoted_before_it_is_fit(settings: Settings, guard: Rollout) -> None:
    with pytest.raises(CanaryRefused, match=r"version 2 of .* is not promoted: it is progressing: 3 of 30 minutes"):
        promote(settings, MODEL, 2)
    with pytest.raises(CanaryRefused, match=r"is of version 2, not of 3"):
        promote(settings, MODEL, 3)
    assert guard.seals == []


def test_nothing_is_sealed_while_nobody_could_promote_it(settings: Settings, guard: Rollout) -> None:
    guard.phase = "promoting"
    with pytest.raises(DagsterUnavailable, match="does not answer"):
        promote(settings, MODEL, 2)
    assert guard.seals == []


def test_a_watch_ends_with_the_rollout(settings: Settings, guard: Rollout) -> None:
    looks = watch(settings, MODEL, pause=0.0)
    assert next(looks).rollout["phase"] == "progressing"
    guard.phase = "failed"
    assert [look.rollout["phase"] for look in looks] == ["failed"]


def test_a_watch_outlives_an_endpoint_that_falls_silent(guard: Rollout) -> None:
    with served(guard) as port:
        settings = guard.registry.settings.model_copy(update={"serve_port": port})
        looks = watch(settings, MODEL, pause=0.0)
        next(looks)
    silent = next(looks)
    assert silent.trouble is not None
    assert silent.rollout["version"] == 2


def test_without_a_rollout_or_an_endpoint_there_is_nothing_to_show(settings: Settings, guard: Rollout) -> None:
    guard.phase = "none"
    with pytest.raises(CanaryRefused, match="there is no rollout of"):
        rollout_of(settings, MODEL)
    with pytest.raises(EndpointUnavailable, match="mlops status"):
        next(watch(settings.model_copy(update={"serve_port": free_port()}), MODEL))


def test_stopping_needs_a_reason(settings: Settings) -> None:
    with pytest.raises(CanaryRefused, match="--reason"):
        abort(settings, MODEL, 2, " ")
