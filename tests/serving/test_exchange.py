"""A replica and its guard: one exchange after the other, and what is loaded serves on whatever the others answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.server import HTTPServer, ThreadingHTTPServer
from threading import Event
from typing import Any, Literal

import pytest

from mlops_assets.serving import endpoint
from mlops_assets.serving.routing import Route, RoutingTable
from mlops_assets.settings import Settings
from tests.http_server import QuietHandler, listening
from tests.serving.factories import MODEL
from tests.serving.in_process import LocalGuard, World, noon, with_canary
from tests.serving.world import settings_in

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class Held:
    """A way to the guard on which the first exchange is held up: its question, or its answer."""

    def __init__(self, guard: LocalGuard, part: Literal["question", "answer"]) -> None:
        self._exchange = guard.exchange
        self._part = part
        self._first = True
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def exchange(self, *said: Any) -> RoutingTable:
        first, self._first = self._first, False
        if first and self._part == "question":
            await self._wait()
        table = await self._exchange(*said)
        if first and self._part == "answer":
            await self._wait()
        return table

    async def _wait(self) -> None:
        self.reached.set()
        await self.go_on.wait()


async def with_held_guard(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, part: Literal["question", "answer"]
) -> tuple[World, Held]:
    """A world with a canary, and the guard's first exchange from now on, held up."""
    world = await with_canary(settings)
    held = Held(world.guard, part)
    monkeypatch.setattr(world.guard, "exchange", held.exchange)
    return world, held


async def test_an_exchange_that_is_held_up_is_not_overtaken_by_one_that_counts_more(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, held = await with_held_guard(settings, monkeypatch, "question")
    await world.send(20)
    first = asyncio.create_task(world.service.exchange())
    await held.reached.wait()
    await world.send(20, first=20)
    second = asyncio.create_task(world.service.exchange())
    await asyncio.sleep(0.01)
    held.go_on.set()
    assert await asyncio.gather(first, second) == [True, True]
    counts = world.rollout()["counts"]
    assert counts["stable"]["requests"] + counts["canary"]["requests"] == 40


async def test_however_many_look_at_a_rollout_the_guard_is_asked_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await with_canary(settings)
    asked: list[str] = []
    rollout = world.guard.rollout

    async def counted(model: str) -> dict[str, Any]:
        asked.append(model)
        return await rollout(model)

    monkeypatch.setattr(world.guard, "rollout", counted)
    replies = await asyncio.gather(*(world.client.get(f"/models/{MODEL}/rollout") for _ in range(50)))
    assert {reply.json()["phase"] for reply in replies} == {"progressing"}
    assert asked == [MODEL]


async def test_after_an_abort_no_older_answer_of_the_guard_brings_the_canary_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, held = await with_held_guard(settings, monkeypatch, "answer")
    version = world.rollout()["version"]
    before = asyncio.create_task(world.service.exchange())
    await held.reached.wait()
    stop = {"version": version, "reason": "enough"}
    stopped = asyncio.create_task(world.admin(f"/models/{MODEL}/rollout/abort", stop))
    await asyncio.sleep(0.1)
    held.go_on.set()
    assert await before
    assert (await stopped).status_code == 200
    assert {reply["arm"] for reply in await world.send(30)} == {"stable"}


@pytest.mark.parametrize(
    ("status", "body"), [(400, b"what?"), (200, b"{}"), (200, b"<html>welcome</html>")], ids=["400", "{}", "a page"]
)
async def test_without_the_guard_a_registry_that_answers_nonsense_changes_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int, body: bytes
) -> None:
    class Nonsense(QuietHandler):
        asked = 0

        def do_GET(self) -> None:
            Nonsense.asked += 1
            self.say(body, status)

    world = await with_canary(settings)
    with listening(ThreadingHTTPServer(("127.0.0.1", 0), Nonsense)) as server:
        replica, late = (World(at(settings, server), beside=world) for _ in range(2))
        async with running(replica, monkeypatch):
            world.guard.kill()
            await until(lambda: Nonsense.asked > 2)
            assert {reply["model_version"] for reply in await replica.send(30)} == {1}
            await late.service.start()
            assert (await late.predict(event_timestamp=noon())).status_code == 503
            await settled(late)
    assert caplog.text.count("without the guard, the registry cannot be followed") == 2  # once by each replica


async def test_without_the_guard_a_registry_that_hangs_holds_up_nothing_and_overrules_no_guard_that_is_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = Event(), Event()

    def hanging(*_: object) -> Route:
        asked.set()
        go_on.wait(150)
        return Route()

    monkeypatch.setattr(endpoint, "route_from_registry", hanging)
    world = await with_canary(settings)
    replica = World(settings, beside=world)
    async with running(replica, monkeypatch):
        assert {reply["arm"] for reply in await replica.send(30)} == {"stable", "canary"}
        world.guard.kill()
        await until(asked.is_set)
        assert {reply["arm"] for reply in await replica.send(30)} == {"stable"}
        world.guard.revive()
        await world.settle()
        await until(lambda: replica.service.model(MODEL).route.canary)
        go_on.set()
        await settled(replica)
        assert {reply["arm"] for reply in await replica.send(30)} == {"stable", "canary"}


def at(settings: Settings, registry: HTTPServer) -> Settings:
    """The same home, with another registry."""
    return settings_in(settings.home, mlflow_tracking_uri=f"http://127.0.0.1:{registry.server_port}")


@asynccontextmanager
async def running(replica: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A replica in touch with its guard, whose loop must live to the end."""
    monkeypatch.setattr(endpoint, "UNGUARDED_SECONDS", 1.0)
    monkeypatch.setattr(endpoint, "EXCHANGE_SECONDS", 0.05)
    await replica.service.start()
    loop = asyncio.create_task(replica.service.run())
    try:
        yield
        assert not loop.done()
    finally:
        while not loop.done():  # in Python 3.11 a cancellation is lost that meets the end of a `wait_for`
            loop.cancel()
            await asyncio.sleep(0.01)
        await settled(replica)


async def settled(replica: World) -> None:
    """Nothing is on its way to the registry, whose end would else be waited for for minutes."""
    if replica.service._asking_registry is not None:
        await replica.service._asking_registry


async def until(condition: Callable[[], object]) -> None:
    """Wait for it; two minutes at most, since who asks a registry first imports MLflow's client for that."""
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.01)
