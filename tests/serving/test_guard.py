"""The guard when what it rests on fails: the disk that holds its state, and a registry that changes as it looks."""

from __future__ import annotations

import pytest

from mlops_assets.resources.registry import Registry, Version
from mlops_assets.serving import keeper
from mlops_assets.settings import Settings
from tests.serving.factories import MODEL, register, write_artefact
from tests.serving.full_disk import no_room_in
from tests.serving.in_process import World, serving, with_canary

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def admin(world: World, what: str) -> tuple[int, str]:
    """Ask to stop or to promote version 2; returns the status, and what was said."""
    body = {"version": 2, "reason": "enough"} if what == "abort" else {"version": 2}
    reply = await world.admin(f"/models/{MODEL}/rollout/{what}", body)
    return reply.status_code, reply.text


async def arms(world: World) -> set[str]:
    return {reply["arm"] for reply in await world.send(30)}


async def test_while_its_disk_is_full_it_goes_on_says_so_and_lets_no_canary_answer(settings: Settings) -> None:
    world = await with_canary(settings)
    with no_room_in(settings.model_home(MODEL).rollout):
        await world.send(60)
        await world.settle()
        assert await arms(world) == {"stable"}
        health = (await world.client.get("/health")).json()
        assert "rollout cannot be written" in health["guard"]["error"]
        assert (health["status"], health["guard"]["ok"], health["registry"]["ok"]) == ("degraded", False, True)
        assert (await world.client.get("/metrics")).status_code == 200
        status, said = await admin(world, "abort")
        assert (status, "nothing has changed" in said) == (503, True)
    await world.settle()
    assert (await world.client.get("/health")).json()["guard"] == {"ok": True, "error": None}
    counts = world.rollout()["counts"]
    assert counts["stable"]["requests"] + counts["canary"]["requests"] == 60  # all that was split is counted
    assert await arms(world) == {"stable", "canary"}
    assert (await admin(world, "abort"))[0] == 200


async def test_an_abort_that_could_not_be_written_has_not_happened(settings: Settings) -> None:
    world = await with_canary(settings)
    with no_room_in(settings.model_home(MODEL).rollout):
        assert (await admin(world, "abort"))[0] == 503
    await world.service.exchange()
    assert await arms(world) == {"stable", "canary"}


async def test_a_rollout_waits_at_each_of_its_steps_for_room_on_the_disk(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, home = await serving(settings), settings.model_home(MODEL).rollout
    folder = settings.home / "other"
    register(Registry(settings), folder, write_artefact(folder, "other"), alias="canary")
    with no_room_in(home):
        await world.settle()
        assert world.rollout()["phase"] == "none"
        assert (await world.client.get("/health")).json()["registry"]["ok"]  # this is no fault of the registry's
    world.guard.guard.follow_registry()
    with no_room_in(home):
        await world.settle()
        assert world.rollout()["phase"] == "initializing"
    await world.settle()
    assert world.rollout()["phase"] == "progressing"
    monkeypatch.setattr(keeper, "ABSENT_SECONDS", -1.0)
    with no_room_in(home):
        world.guard.guard.canary_absent()
        assert world.rollout()["phase"] == "progressing"
    world.guard.guard.canary_absent()
    assert world.rollout()["phase"] == "failed"


async def test_a_promotion_between_two_of_its_looks_is_one_that_succeeded(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, registry = await with_canary(settings), Registry(settings)
    while world.rollout()["phase"] == "progressing":
        await world.send(100)
        await world.settle()
    with no_room_in(settings.model_home(MODEL).rollout):
        assert (await admin(world, "seal"))[0] == 503
    assert (await admin(world, "seal"))[0] == 200
    look, looks = Registry.by_alias, []

    def promoted_meanwhile(self: Registry, model: str, alias: str) -> Version | None:
        looks.append(alias)
        found = look(self, model, alias)
        if len(looks) == 1:
            registry.move_alias(MODEL, "production", 2, expected=1, evidence_name="rollout")
            registry.drop_alias(MODEL, "canary", expected=2)
        return found

    monkeypatch.setattr(Registry, "by_alias", promoted_meanwhile)
    await world.settle()
    assert world.rollout()["phase"] == "succeeded"
