"""A release, step by step: what comes next is read from the registry and the guard, so any step may be cut short."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.lineage.loop import Loop
from mlops_assets.lineage.release import next_step as step_of
from mlops_assets.resources.registry import Registry
from tests.lineage.guard import Rollout, served
from tests.lineage.world import definitions, metadata
from tests.serving.factories import write_artefact

pytestmark = pytest.mark.slow  # MLflow takes seconds to import, and each step is a run


@pytest.fixture
def registry(registered: Loop) -> Registry:
    return registered.registry()


@pytest.fixture
def guard(registry: Registry) -> Rollout:
    return Rollout(registry, "m")


@pytest.fixture
def loop(registered: Loop, guard: Rollout) -> Iterator[Loop]:
    """A model with an empty registry and a guard that answers."""
    with served(guard) as port:
        yield replace(registered, settings=registered.settings.model_copy(update={"serve_port": port}))


def candidate(registry: Registry, label: str) -> int:
    """A tiny model that passed the gate, registered as the graph does it; returns its version."""
    folder = Path(registry.settings.home) / "exports" / label
    version = registry.register("m", None, folder, write_artefact(folder, label), "tiny", {"gate": "pass"}).version
    registry.attach_evidence("m", version, "gate", {"verdict": "pass"})
    waiting = registry.by_alias("m", "candidate")
    registry.move_alias("m", "candidate", version, expected=waiting.version if waiting else None, evidence_name="gate")
    return version


def run(loop: Loop, job: str, instance: dg.DagsterInstance | None = None) -> dg.ExecuteInProcessResult:
    resolved = definitions(loop).resolve_job_def(loop.name(job))
    return resolved.execute_in_process(instance=instance or dg.DagsterInstance.ephemeral(), raise_on_error=False)


def next_step(loop: Loop) -> tuple[str, int] | str:
    """What comes next while nobody has approved anything."""
    return step_of(loop, dg.DagsterInstance.ephemeral())


def take(loop: Loop) -> str:
    """Do what the sensor would ask for; its name, or the reason why there is nothing to do."""
    step = next_step(loop)
    if isinstance(step, str):
        return step
    assert run(loop, step[0]).success
    return step[0]


def aliases(registry: Registry) -> dict[str, int]:
    return {alias: version.version for version in registry.versions("m") for alias in version.aliases}


def in_production(loop: Loop, registry: Registry, label: str = "query") -> int:
    version = candidate(registry, label)
    assert take(loop) == "promote"
    return version


def test_without_a_candidate_nothing_is_to_be_done(loop: Loop) -> None:
    assert next_step(loop) == "no candidate is waiting"


def test_the_first_version_goes_to_production_on_the_gates_evidence(loop: Loop, registry: Registry) -> None:
    version = candidate(registry, "query")
    assert next_step(loop) == ("promote", version)
    assert take(loop) == "promote"
    assert aliases(registry) == {"production": version}
    found = registry.get("m", version)
    assert found.tags["rollout"] == "succeeded"
    assert "production_since" in found.tags
    assert registry.evidence("m", version)["rollout"]["outcome"] == "first version"
    assert next_step(loop) == "no candidate is waiting"


def test_with_the_alias_production_gone_a_candidate_is_no_first_version_and_waits(
    loop: Loop, registry: Registry
) -> None:
    stable = in_production(loop, registry)
    registry.drop_alias("m", "production", expected=stable)
    candidate(registry, "refund")
    said = f"no version of m has the alias production any more, which version {stable} had last"
    assert str(next_step(loop)).startswith(said)
    assert not run(loop, "promote").success
    assert not run(loop, "start_canary").success
    assert "production" not in aliases(registry)
    registry.move_alias("m", "production", stable, expected=None, evidence_name="rollout")
    assert take(loop) == "start_canary"


def test_a_first_release_cut_short_before_the_alias_moved_comes_to_the_same_end(loop: Loop, registry: Registry) -> None:
    version = candidate(registry, "query")
    registry.set_tags("m", version, {"production_since": "2026-03-01T00:00:00+00:00"})  # killed here
    assert take(loop) == "promote"
    assert aliases(registry) == {"production": version}


def test_a_later_version_starts_as_a_canary_beside_the_stable_one(
    loop: Loop, registry: Registry, guard: Rollout
) -> None:
    stable = in_production(loop, registry)
    version = candidate(registry, "refund")
    assert take(loop) == "start_canary"
    assert aliases(registry) == {"production": stable, "candidate": version, "canary": version}
    assert next_step(loop) == f"version {version} waits for the endpoint to see it"
    guard.version, guard.phase, guard.reason, guard.expected_seconds = version, "progressing", "3 of 30 minutes", 1620
    assert next_step(loop) == (
        f"version {version} is being judged: progressing, 3 of 30 minutes; a verdict is expected in about 27 minutes"
    )


def test_a_canary_says_how_long_its_verdict_will_take_before_it_starts(loop: Loop, registry: Registry) -> None:
    in_production(loop, registry)
    version = candidate(registry, "refund")
    arrived = datetime.now(UTC) - timedelta(minutes=10)
    log = loop.home.predictions / "replica.ndjson"
    log.parent.mkdir(parents=True)
    log.write_text(f'{{"received_at": "{arrived.isoformat()}"}}\n' * 300)
    shown = metadata(run(loop, "start_canary"), loop, "canary")
    assert shown["requests_per_second"] == pytest.approx(0.5, rel=0.05)
    assert shown["expected_minutes_to_verdict"] == pytest.approx(299 / 0.05 / 60, rel=0.05)
    assert float(registry.get("m", version).tags["requests_per_second"]) == pytest.approx(0.5, rel=0.05)


def test_with_no_traffic_a_canary_says_that_only_the_cap_will_end_it(loop: Loop, registry: Registry) -> None:
    in_production(loop, registry)
    candidate(registry, "refund")
    shown = metadata(run(loop, "start_canary"), loop, "canary")
    assert (shown["requests_per_second"], shown["expected_minutes_to_verdict"]) == (0.0, 240.0)


def test_a_canary_that_was_judged_fit_is_sealed_and_replaces_the_stable_version(
    loop: Loop, registry: Registry, guard: Rollout
) -> None:
    stable = in_production(loop, registry)
    version = candidate(registry, "refund")
    take(loop)
    guard.version, guard.phase = version, "promoting"
    assert take(loop) == "promote"
    assert guard.seals == [version]
    assert aliases(registry) == {"production": version}
    assert registry.get("m", stable).tags["archived"] == "true"
    assert "archived" not in registry.get("m", version).tags


def test_the_guards_word_about_another_version_does_not_promote(loop: Loop, registry: Registry, guard: Rollout) -> None:
    stable = in_production(loop, registry)
    candidate(registry, "refund")
    take(loop)
    guard.version, guard.phase = stable, "promoting"
    assert isinstance(next_step(loop), str)


def test_a_canary_that_the_guard_aborted_is_not_promoted_and_the_run_says_why(
    loop: Loop, registry: Registry, guard: Rollout
) -> None:
    stable = in_production(loop, registry)
    version = candidate(registry, "refund")
    take(loop)
    guard.version, guard.phase, guard.answer = version, "promoting", "aborted: 12 of 40 answers wrong"
    failed = run(loop, "promote")
    assert not failed.success
    (event,) = failed.filter_events(lambda event: event.is_step_failure)
    assert f"version {version} is not promoted: 12 of 40 answers wrong" in str(event.event_specific_data)
    assert aliases(registry)["production"] == stable


@pytest.mark.parametrize("outcome", ["failed", "inconclusive"])
def test_a_candidate_that_was_sent_back_is_not_tried_again(loop: Loop, registry: Registry, outcome: str) -> None:
    in_production(loop, registry)
    version = candidate(registry, "refund")
    registry.set_tags("m", version, {"rollout": outcome})
    said = f"candidate {version} was sent back: {outcome}; `mlops canary start {version}` offers it again"
    assert next_step(loop) == said
    failed = run(loop, "start_canary")  # materialized by hand, or tried again after its worker died
    (event,) = failed.filter_events(lambda event: event.is_step_failure)
    assert said in str(event.event_specific_data)
    assert "canary" not in aliases(registry)


def test_a_promotion_cut_short_after_the_seal_comes_to_the_same_end(
    loop: Loop, registry: Registry, guard: Rollout
) -> None:
    in_production(loop, registry)
    version = candidate(registry, "refund")
    take(loop)
    guard.version, guard.phase = version, "promoting"
    loop.endpoint().seal("m", version)  # and here the run was killed

    assert next_step(loop) == ("promote", version)
    assert take(loop) == "promote"
    assert guard.seals == [version, version]
    assert aliases(registry) == {"production": version}


@pytest.mark.parametrize("guard_was_faster", [False, True], ids=["canary alias left", "canary alias dropped by guard"])
def test_a_promotion_cut_short_after_the_alias_moved_comes_to_the_same_end(
    loop: Loop, registry: Registry, guard: Rollout, guard_was_faster: bool
) -> None:
    stable = in_production(loop, registry)
    version = candidate(registry, "refund")
    take(loop)
    guard.version, guard.phase = version, "promoting"
    loop.endpoint().seal("m", version)
    registry.set_tags("m", version, {"production_since": "2026-03-01T00:00:00+00:00"})
    registry.move_alias("m", "production", version, expected=stable, evidence_name="rollout")  # killed here
    guard.phase = "succeeded"
    if guard_was_faster:
        registry.set_tags("m", version, {"rollout": "succeeded"})
        registry.drop_alias("m", "canary", expected=version)

    assert next_step(loop) == ("promote", version)
    assert take(loop) == "promote"

    assert aliases(registry) == {"production": version}
    assert registry.get("m", stable).tags["archived"] == "true"
    assert next_step(loop) == "no candidate is waiting"


def test_a_first_release_cut_short_after_the_alias_moved_comes_to_the_same_end(loop: Loop, registry: Registry) -> None:
    version = candidate(registry, "query")
    registry.attach_evidence("m", version, "rollout", {"outcome": "first version"})
    registry.move_alias("m", "production", version, expected=None, evidence_name="rollout")  # killed here

    assert take(loop) == "promote"
    assert aliases(registry) == {"production": version}
    assert next_step(loop) == "no candidate is waiting"


# Approval


@pytest.fixture
def manual(loop: Loop) -> Loop:
    """The same model, whose releases wait for a person."""
    canary = loop.spec.canary.model_copy(update={"approval": "manual"})
    return replace(loop, spec=loop.spec.model_copy(update={"canary": canary}))


def approve(loop: Loop, instance: dg.DagsterInstance, version: int, by: str) -> None:
    """As Dagster's webserver does when an approval is reported to it."""
    key = loop.key("release_approval")
    instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata={"version": version, "by": by}))


def test_a_canary_that_was_judged_fit_waits_for_a_person_where_the_policy_says_so(
    manual: Loop, registry: Registry, guard: Rollout, instance: dg.DagsterInstance
) -> None:
    stable = in_production(manual, registry)
    version = candidate(registry, "refund")
    take(manual)
    approve(manual, instance, version, "erin")  # of an earlier rollout of it: not meant either
    guard.version, guard.phase, guard.reason = version, "waiting_promotion", "fit, waits for a person"
    guard.waits_since = datetime.now(UTC)
    assert step_of(manual, instance) == f"version {version} is being judged: waiting_promotion, fit, waits for a person"

    approve(manual, instance, stable, "carla")  # of another version: not meant
    assert isinstance(step_of(manual, instance), str)

    approve(manual, instance, version, "carla")
    approve(manual, instance, version + 1, "otto")
    assert step_of(manual, instance) == ("promote", version)
    assert run(manual, "promote", instance).success
    (approval,) = guard.approvals
    assert approval is not None
    assert approval["by"] == "carla"
    assert datetime.fromisoformat(approval["at"]).tzinfo is not None
    assert aliases(registry) == {"production": version}


def test_the_graph_has_a_place_for_approvals_only_where_they_are_asked_for(loop: Loop, manual: Loop) -> None:
    def keys(of: Loop) -> set[dg.AssetKey]:
        return set(definitions(of).resolve_asset_graph().get_all_asset_keys())

    ab_test = loop.spec.canary.model_copy(update={"ab_hours": 72.0})
    held = loop.spec.model_copy(update={"canary": ab_test})
    assert keys(manual) - keys(loop) == {loop.key("release_approval")}
    assert keys(replace(loop, spec=held)) == keys(manual)


def test_every_step_may_be_repeated(loop: Loop, registry: Registry, guard: Rollout) -> None:
    in_production(loop, registry)
    version = candidate(registry, "refund")
    for _ in range(2):
        assert run(loop, "start_canary").success
    guard.version, guard.phase = version, "promoting"
    for _ in range(2):
        assert run(loop, "promote").success
    assert aliases(registry) == {"production": version}


def test_without_a_candidate_a_canary_cannot_be_started(loop: Loop) -> None:
    failed = run(loop, "start_canary")
    assert not failed.success


def test_the_sensor_asks_for_the_step_once(loop: Loop, registry: Registry, instance: dg.DagsterInstance) -> None:
    version = candidate(registry, "query")
    sensor = definitions(loop).resolve_sensor_def("m_rollout")
    (request,) = sensor.evaluate_tick(dg.build_sensor_context(instance=instance)).run_requests or []
    assert (request.job_name, request.run_key) == ("m_promote", f"m:promote-v{version}:0")
