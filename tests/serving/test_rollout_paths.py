"""A rollout from alias to verdict, over HTTP and the real registry: promoted, stopped, killed in between."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from statistics import median
from typing import Any

import pytest

from mlops_assets.declarations import find_specs
from mlops_assets.release.replay import State, replay_rollout
from mlops_assets.release.rollout import Approval, RolloutState
from mlops_assets.resources.registry import Registry
from mlops_assets.serving import endpoint, shadow
from mlops_assets.serving.batcher import Overloaded
from mlops_assets.serving.canary_host import CanaryHost
from mlops_assets.settings import Settings
from tests.serving.factories import MODEL, register, write_artefact, write_broken_artefact, write_slow_artefact
from tests.serving.in_process import World, noon
from tests.serving.world import POLICY, settings_in

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class Story:
    """A served production version 1 ("refund"), and what happens next."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.registry = Registry(settings)
        self.world = World(settings)

    def publish(self, name: str, alias: str, write: Any, *arguments: str) -> int:
        folder = self.settings.home / "artefacts" / name
        return register(self.registry, folder, write(folder, *arguments), alias=alias).version

    async def begin_canary(self, write: Any, *arguments: str) -> int:
        version = self.publish(f"canary-{write.__name__}", "canary", write, *arguments)
        await self.world.settle()
        await self.world.settle()
        assert self.world.rollout()["phase"] == "progressing"
        return version

    def tags(self, version: int) -> dict[str, str]:
        return dict(self.registry.get(MODEL, version).tags)

    def log(self, of: str = "predictions") -> list[dict[str, Any]]:
        folder = getattr(self.settings.model_home(MODEL), of)
        return [json.loads(line) for path in sorted(folder.glob("*")) for line in path.read_text().splitlines()]


async def stable_story(settings: Settings) -> Story:
    story = Story(settings)
    story.publish("one", "production", write_artefact, "refund")
    await story.world.settle()
    assert (await story.world.admin("/clock", {"now": noon()})).status_code == 200
    return story


@pytest.fixture
async def story(settings: Settings) -> Story:
    return await stable_story(settings)


async def test_the_split_is_sticky_and_near_its_weight(story: Story) -> None:
    canary = await story.begin_canary(write_artefact, "other")
    first = await story.world.send(400)
    again = await story.world.send(400)
    assert [reply["arm"] for reply in first] == [reply["arm"] for reply in again]
    share = sum(reply["arm"] == "canary" for reply in first) / 400
    assert 0.2 < share < 0.4  # 0.3, four standard errors
    for reply in first:
        expected = ("other", canary) if reply["arm"] == "canary" else ("refund", 1)
        assert (reply["label"], reply["model_version"]) == expected
    rollout_id = story.world.rollout()["rollout_id"]
    assert {record["rollout_id"] for record in story.log()} == {rollout_id}


async def test_a_fit_canary_is_sealed_and_becomes_stable(story: Story) -> None:
    canary = await story.begin_canary(write_artefact, "other")
    early = await story.world.admin(f"/models/{MODEL}/rollout/seal", {"version": canary})
    assert early.json()["answer"].startswith("not ready")
    for batch in range(200):
        await story.world.send(100, first=100 * batch)
        await story.world.settle()
        if story.world.rollout()["phase"] == "promoting":
            break
    sealed = await story.world.admin(f"/models/{MODEL}/rollout/seal", {"version": canary})
    assert sealed.json() == {"answer": "sealed", "phase": "sealed"}
    evidence = story.registry.evidence(MODEL, canary)["rollout"]
    assert evidence["rollout"]["phase"] == "sealed"
    story.registry.move_alias(MODEL, "production", canary, expected=1, evidence_name="rollout")
    await story.world.settle()
    assert {reply["model_version"] for reply in await story.world.send(20)} == {canary}
    assert story.world.rollout()["phase"] == "succeeded"
    assert story.tags(canary)["rollout"] == "succeeded"
    assert "archived" not in story.tags(canary)
    assert story.registry.by_alias(MODEL, "canary") is None


async def test_a_failing_canary_is_stopped_and_no_request_fails(story: Story) -> None:
    canary = await story.begin_canary(write_broken_artefact)
    replies = await story.world.send(100)
    assert {reply["model_version"] for reply in replies} == {1}
    detours = [record for record in story.log() if record["error"]]
    assert detours
    assert all(record["status"] == "ok" and record["arm"] == "stable" for record in detours)
    await story.world.settle()
    assert story.world.rollout()["phase"] == "failed"
    await story.world.settle()
    tags = story.tags(canary)
    assert (tags["rollout"], tags["archived"]) == ("failed", "true")
    assert story.registry.by_alias(MODEL, "canary") is None
    assert story.registry.evidence(MODEL, canary)["rollout"]["rollout"]["steps"][0]["counts"]["canary"]["failures"] > 0


@pytest.mark.parametrize("write", [write_broken_artefact, write_artefact])
async def test_the_log_says_what_each_request_counted_for(story: Story, write: Any) -> None:
    await story.begin_canary(write, *(["other"] if write is write_artefact else []))
    await story.world.send(60)
    await story.world.settle()
    counts, records = story.world.rollout()["counts"], story.log()
    for arm in ("stable", "canary"):
        mine = [record for record in records if record["counted"] == arm]
        assert len(mine) == counts[arm]["requests"] > 0
        assert sum(record["arm"] != arm for record in mine) == counts[arm]["failures"]
    assert all(0 < record["version_ms"] <= record["latency_ms"] for record in records if not record["error"])


async def test_a_slow_canary_is_stopped(settings: Settings) -> None:
    story = await stable_story(settings_in(settings.home, policy={**POLICY, "max_p99_ms": 150.0}))
    await story.begin_canary(write_slow_artefact, "other")
    for batch in range(40):
        await story.world.send(10, first=10 * batch)
        await story.world.settle()
        if story.world.rollout()["phase"] == "failed":
            break
    assert story.world.rollout()["phase"] == "failed"
    assert {reply["arm"] for reply in await story.world.send(30)} == {"stable"}


async def test_a_wrong_canary_is_stopped_by_its_labels(story: Story) -> None:
    await story.begin_canary(write_artefact, "other")
    for batch in range(40):
        for reply in await story.world.send(50, first=50 * batch):
            await story.world.label(reply, "refund")
        await story.world.settle()
        if story.world.rollout()["phase"] != "progressing":
            break
    assert story.world.rollout()["phase"] == "failed"
    assert "wrong" in story.world.rollout()["reason"]


async def test_labels_that_reach_another_replica_stop_a_wrong_canary_all_the_same(story: Story) -> None:
    await story.begin_canary(write_artefact, "other")
    first, second = story.world, World(story.settings, beside=story.world)
    await second.settle()
    for batch in range(40):
        for reply in await first.send(50, first=50 * batch):
            await second.label(reply, "refund")
        for replica in (second, first, first):  # the label to the guard, to the one who knows, its judgement back
            await replica.service.exchange()
        if story.world.rollout()["phase"] != "progressing":
            break
    assert story.world.rollout()["phase"] == "failed"
    assert "wrong" in story.world.rollout()["reason"]


async def test_an_ab_test_holds_its_split_and_gives_its_report_to_the_registry(settings: Settings) -> None:
    policy = {**POLICY, "weights": [0.5], "ab_hours": 2 / 3600}
    story = await stable_story(settings_in(settings.home, policy))
    canary = await story.begin_canary(write_artefact, "other")
    while story.world.rollout()["phase"] == "progressing":
        for reply in await story.world.send(50):
            await story.world.label(reply, "refund" if reply["arm"] == "stable" else "other")
        await story.world.settle()
    assert story.world.rollout()["phase"] == "waiting_promotion"
    await story.world.settle()
    report = story.registry.evidence(MODEL, canary)["rollout_report"]
    comparison = report["rollout"]["history"][-1]["comparison"]
    assert comparison["final"]
    assert [difference["name"] for difference in comparison["differences"]] == ["success", "in_time", "correct"]
    assert all(difference["lower"] <= 0 <= difference["upper"] for difference in comparison["differences"])
    seal = f"/models/{MODEL}/rollout/seal"
    assert (await story.world.admin(seal, {"version": canary})).json()["answer"].startswith("not ready")
    approval = {"by": "carla", "at": datetime.now(UTC).isoformat()}
    sealed = await story.world.admin(seal, {"version": canary, "approval": approval})
    assert sealed.json()["answer"] == "sealed"
    evidence = story.registry.evidence(MODEL, canary)["rollout"]["rollout"]
    assert (evidence["approval"]["by"], evidence["history"][-1]["comparison"]) == ("carla", comparison)
    findings = replay_rollout(story.registry.evidence(MODEL, canary)["rollout"])
    assert {finding.state for finding in findings} == {State.FOLLOWS}


async def shadowed(settings: Settings, **more: Any) -> Story:
    """A story whose canaries get copies for a while, before they get customers."""
    return await stable_story(settings_in(settings.home, policy={**POLICY, "shadow_minutes": 0.02, **more}))


async def test_a_shadow_step_asks_the_canary_and_shows_its_answers_to_nobody(settings: Settings) -> None:
    story = await shadowed(settings, shadow_minutes=2.0)
    canary = await story.begin_canary(write_artefact, "other")
    replies = await story.world.send(200)
    assert {(reply["arm"], reply["label"]) for reply in replies} == {("stable", "refund")}
    await story.world.copies_answered()
    await story.world.settle()
    counts = story.world.rollout()["counts"]
    assert 30 < counts["compared"] < 90  # 0.3 of 200, four standard errors
    assert counts["canary"]["requests"] + counts["stable"]["requests"] == 200
    assert (counts["agreed"], counts["dropped"]) == (0, 0)  # "other" is never "refund"
    copies = story.log("shadow")
    assert len(copies) == counts["compared"]
    assert {(c["version"], c["label"], c["stable_label"]) for c in copies} == {(canary, "other", "refund")}
    assert {c["prediction_id"] for c in copies} < {reply["prediction_id"] for reply in replies}


async def test_after_its_shadow_step_a_canary_gets_customers(settings: Settings) -> None:
    story = await shadowed(settings)
    await story.begin_canary(write_artefact, "other")
    arms: set[str] = set()
    for batch in range(100):
        arms = {reply["arm"] for reply in await story.world.send(100, first=100 * batch)}
        await story.world.copies_answered()
        await story.world.settle()
        if "canary" in arms:
            break
    assert arms == {"stable", "canary"}
    (stepped,) = [j for j in story.world.rollout()["history"] if j["action"] == "step"]
    assert " 0.0% of " in stepped["reason"]  # answered as the stable version did


async def test_a_canary_that_fails_on_copies_meets_no_customer(settings: Settings) -> None:
    story = await shadowed(settings, shadow_minutes=2.0)
    canary = await story.begin_canary(write_broken_artefact)
    replies = await story.world.send(60)
    assert [reply["model_version"] for reply in replies] == [1] * 60
    await story.world.copies_answered()
    await story.world.settle()
    assert story.world.rollout()["phase"] == "failed"
    assert {record["error"] for record in story.log("predictions")} == {None}
    assert {copy["status"] for copy in story.log("shadow")} == {"failed"}
    await story.world.settle()
    assert story.tags(canary)["rollout"] == "failed"


async def test_copies_that_pile_up_are_dropped_and_counted_and_cost_nobody_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "MAX_IN_FLIGHT", 2)
    story = await shadowed(settings, shadow_minutes=2.0)
    await story.begin_canary(write_slow_artefact, "refund")
    replies = await story.world.send(100)
    assert median(reply["latency_ms"] for reply in replies) < 150  # the canary takes several hundred
    await story.world.copies_answered()
    await story.world.settle()
    counts = story.world.rollout()["counts"]
    assert counts["dropped"] > 0
    assert counts["canary"]["requests"] + counts["dropped"] + counts["stable"]["requests"] == 100
    assert counts["canary"]["entities"] + counts["stable"]["entities"] == 100


async def test_labels_judge_a_canary_by_what_it_said_to_copies(settings: Settings) -> None:
    story = await shadowed(settings, shadow_minutes=2.0)
    await story.begin_canary(write_artefact, "other")
    for batch in range(20):
        replies = await story.world.send(50, first=50 * batch)
        await story.world.copies_answered()
        for reply in replies:
            await story.world.label(reply, "refund")
        await story.world.settle()
        if story.world.rollout()["phase"] != "progressing":
            break
    assert story.world.rollout()["phase"] == "failed"
    assert story.world.rollout()["reason"].startswith("guard.wrong")


async def test_with_manual_approval_nothing_is_sealed_without_a_person_and_the_evidence_names_them(
    settings: Settings,
) -> None:
    story = await stable_story(settings_in(settings.home, policy={**POLICY, "approval": "manual"}))
    canary = await story.begin_canary(write_artefact, "other")
    for batch in range(200):
        await story.world.send(100, first=100 * batch)
        await story.world.settle()
        if story.world.rollout()["phase"] != "progressing":
            break
    assert story.world.rollout()["phase"] == "waiting_promotion"
    route = f"/models/{MODEL}/rollout/seal"
    refused = await story.world.admin(route, {"version": canary})
    assert refused.json()["answer"].startswith("not ready: the rollout is waiting_promotion")
    earlier = await story.world.admin(route, {"version": canary, "approval": {"by": "erin", "at": noon()}})
    assert earlier.json()["answer"].startswith("not ready: the approval of erin is of 2026-03-01")
    approval = {"by": "carla", "at": datetime.now(UTC).isoformat()}
    sealed = await story.world.admin(route, {"version": canary, "approval": approval})
    assert sealed.json()["answer"] == "sealed"
    recorded = RolloutState.from_dict(story.registry.evidence(MODEL, canary)["rollout"]["rollout"])
    assert recorded.approval == Approval("carla", datetime.fromisoformat(approval["at"]))


async def test_the_traffic_counted_beforehand_tells_how_long_a_verdict_takes(story: Story) -> None:
    folder = story.settings.home / "artefacts" / "canary"
    version = register(story.registry, folder, write_artefact(folder, "other"), alias="candidate").version
    story.registry.set_tags(MODEL, version, {"requests_per_second": "10"})
    story.registry.move_alias(MODEL, "canary", version, expected=None, evidence_name="gate")
    story.world.guard.guard.follow_registry()
    rollout = story.world.rollout()
    assert (rollout["phase"], rollout["requests_per_second"]) == ("initializing", 10.0)
    assert rollout["decision"]["expected_seconds_to_verdict"] == pytest.approx(299 / (10 * 0.3))


async def test_a_stopped_version_is_never_started_again_and_its_alias_is_in_nobodys_way(story: Story) -> None:
    canary = await story.begin_canary(write_artefact, "other")
    reply = await story.world.admin(f"/models/{MODEL}/rollout/abort", {"version": canary, "reason": "changed my mind"})
    assert (reply.status_code, reply.json()["phase"]) == (200, "failed")
    assert {reply["arm"] for reply in await story.world.send(30)} == {"stable"}
    await story.world.settle()
    story.registry.move_alias(MODEL, "canary", canary, expected=None, evidence_name="gate")
    await story.world.settle()
    assert (story.world.rollout()["phase"], story.registry.by_alias(MODEL, "canary")) == ("failed", None)
    story.registry.move_alias(MODEL, "canary", canary, expected=None, evidence_name="gate")
    (story.settings.model_home(MODEL).rollout / "state.json").unlink()
    story.world.guard.revive()
    await story.world.settle()
    assert (story.world.rollout()["phase"], story.registry.by_alias(MODEL, "canary")) == ("none", None)


async def test_a_reason_stands_in_one_line_of_the_log(story: Story, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mlops_assets.serving")
    canary = await story.begin_canary(write_artefact, "other")
    route, forged = f"/models/{MODEL}/rollout/abort", "enough\n2026-11-27 12:00:00,000 INFO guard[1] all is well"
    assert (await story.world.admin(route, {"version": canary, "reason": " \n"})).status_code == 422
    assert (await story.world.admin(route, {"version": canary, "reason": forged})).status_code == 200
    (told,) = [line for line in caplog.text.splitlines() if "all is well" in line]
    assert f"{MODEL}: version {canary} is failed: stopped by hand: enough 2026-11-27 12:00:00,000 INFO" in told


async def test_a_canary_whose_files_were_changed_never_takes_a_request(story: Story) -> None:
    folder = story.settings.home / "artefacts" / "tampered"
    version = register(story.registry, folder, write_artefact(folder, "other"), alias="canary")
    (version.artefact / "model.onnx").write_bytes(b"something else")
    await story.world.settle()
    await story.world.settle()
    assert story.world.rollout()["phase"] == "failed"
    assert str(story.settings.home) not in story.world.rollout()["reason"]  # which anybody may read
    assert story.tags(version.version)["rollout"] == "failed"
    assert {reply["model_version"] for reply in await story.world.send(20)} == {1}


async def test_a_dead_canary_process_costs_a_detour_then_it_is_asked_again(story: Story) -> None:
    await story.begin_canary(write_artefact, "other")
    assert "canary" in {reply["arm"] for reply in await story.world.send(30)}
    story.world.canary = CanaryHost(find_specs(story.world.settings.models_dir))  # a new life that holds nothing
    one_by_one = [(await story.world.send(1, first=customer))[0] for customer in range(30)]  # so that one finds out
    assert {reply["arm"] for reply in one_by_one} == {"stable"}
    await story.world.settle()
    assert "canary" in {reply["arm"] for reply in await story.world.send(30)}
    assert story.world.rollout()["counts"]["canary"]["failures"] == 0 or story.world.rollout()["phase"] == "progressing"


async def test_a_dead_guard_means_no_canary_and_its_return_continues_the_rollout(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    await story.begin_canary(write_artefact, "other")
    await story.world.send(50)
    await story.world.settle()
    before = story.world.rollout()
    story.world.guard.kill()
    monkeypatch.setattr(endpoint, "UNGUARDED_SECONDS", 0.0)
    await story.world.settle()
    assert {reply["arm"] for reply in await story.world.send(30)} == {"stable"}
    assert (await story.world.client.get("/health")).json()["guard"]["ok"] is False
    assert (await story.world.client.get(f"/models/{MODEL}/rollout")).status_code == 503
    story.world.guard.revive()
    await story.world.settle()
    after = story.world.rollout()
    assert after["rollout_id"] == before["rollout_id"]
    assert after["counts"] == before["counts"]
    assert "canary" in {reply["arm"] for reply in await story.world.send(30)}


async def test_a_whole_restart_comes_back_with_the_same_versions_and_weights(story: Story) -> None:
    await story.begin_canary(write_artefact, "other")
    before = {reply["arm"] for reply in await story.world.send(60)}
    await story.world.settle()
    state = story.world.rollout()
    again = World(story.settings)
    await again.settle()
    await again.settle()
    for name in ("rollout_id", "weight", "phase", "counts", "started_at"):
        assert again.rollout()[name] == state[name]
    assert {reply["arm"] for reply in await again.send(60)} == before


async def test_a_guard_that_restarts_without_a_registry_goes_on_with_what_it_knew(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    await story.begin_canary(write_artefact, "other")
    database = story.settings.home / "mlflow" / "mlflow.db"
    database.rename(database.with_suffix(".away"))
    story.world.guard.revive()
    await story.world.settle()
    await story.world.settle()
    assert {reply["arm"] for reply in await story.world.send(60)} == {"stable", "canary"}
    told = await story.world.client.get("/health")
    registry = told.json()["registry"]
    assert (told.json()["status"], registry["ok"], registry["error"]) == ("degraded", False, "RegistryNotPrepared")
    assert str(story.settings.home) not in told.text
    assert caplog.text.count(f"{database} does not exist") == 1  # the log has the whole, once
    database.with_suffix(".away").rename(database)
    await story.world.settle()
    assert (await story.world.client.get("/health")).json()["registry"]["ok"] is True


async def test_a_locked_registry_delays_the_news_but_not_the_stop(story: Story) -> None:
    canary = await story.begin_canary(write_broken_artefact)
    with closing(sqlite3.connect(story.settings.home / "mlflow" / "mlflow.db")) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        await story.world.send(100)
        await story.world.service.exchange()
        assert story.world.rollout()["phase"] == "failed"
        assert {reply["arm"] for reply in await story.world.send(30)} == {"stable"}
        connection.rollback()
    await story.world.settle()
    assert story.tags(canary)["rollout"] == "failed"


async def test_a_canary_that_hangs_is_given_up_on(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(*_: object) -> None:
        await asyncio.Event().wait()

    await story.begin_canary(write_artefact, "other")
    monkeypatch.setattr(story.world.canary, "answer", hangs)
    replies = await story.world.send(20)
    assert {reply["arm"] for reply in replies} == {"stable"}
    await story.world.settle()
    assert story.world.rollout()["counts"]["canary"]["failures"] > 0
    assert any("no answer within" in (record["error"] or "") for record in story.log())


async def test_an_overloaded_canary_costs_a_detour_and_is_nobodys_failure(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overloaded(*_: object) -> None:
        raise Overloaded("7 requests are waiting already")

    await story.begin_canary(write_artefact, "other")
    monkeypatch.setattr(story.world.canary._loaded[MODEL].batcher, "submit", overloaded)
    assert {reply["arm"] for reply in await story.world.send(20)} == {"stable"}
    assert any("overloaded" in (record["error"] or "") for record in story.log())
    await story.world.settle()
    assert story.world.rollout()["phase"] == "progressing"
    assert story.world.rollout()["counts"]["canary"]["failures"] == 0
