"""A canary is waited for as long as its model's deadline says, and what took long tells whose failure it was."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mlops_assets.serving import canary_call
from mlops_assets.serving.canary_call import CanaryCall
from mlops_assets.serving.canary_host import CanaryHost
from mlops_assets.serving.routing import Absent, Answer, CanaryRoute, Refusal
from mlops_assets.spec import ModelSpec, ServingSpec
from tests.serving.networks import Door, Network, a_door, ref, versions

pytestmark = pytest.mark.anyio

ROUTE = CanaryRoute(ref(2), "rollout", step=0, salt="salt", weight=0.5, shadow=False, beat=1, slow_ms=100.0)
SECONDS = 0.4


@pytest.fixture
def door() -> Iterator[Door]:
    with a_door() as door:
        yield door


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, door: Door) -> CanaryCall:
    """To a canary whose deadline is `SECONDS` and whose network the door holds up."""
    monkeypatch.setattr(canary_call, "LEAST_SECONDS", 0.0)
    versions(monkeypatch, lambda _: Network(door))
    host = CanaryHost([ModelSpec(name="m", serving=ServingSpec(deadline_ms=1000 * SECONDS))])
    host.hold({"m": ref(2)})
    return CanaryCall("m", host.answer, SECONDS)


async def held_up(call: CanaryCall, door: Door) -> asyncio.Task[Answer | Refusal | Absent]:
    task = asyncio.create_task(call(ROUTE, "stop", {}))
    assert await asyncio.to_thread(door.held.wait, 5)
    return task


@pytest.mark.slow
async def test_a_network_that_takes_longer_than_the_deadline_has_failed_and_who_waits_behind_it_has_not(
    call: CanaryCall, door: Door
) -> None:
    in_the_network = await held_up(call, door)
    behind = asyncio.create_task(call(ROUTE, "behind it", {}))
    assert isinstance(await behind, Absent)
    assert await in_the_network == Refusal("no answer within 0.8 s")


async def test_an_overloaded_canary_is_left_alone_until_the_next_beat(call: CanaryCall, door: Door) -> None:
    in_the_network = await held_up(call, door)
    overloaded = await call(ROUTE, "behind it", {})
    assert isinstance(overloaded, Absent)
    assert "overloaded" in overloaded.reason
    assert await call(ROUTE, "hello", {}) == Absent("not asked: its process has not come back yet")
    door.opened.set()
    await in_the_network
    assert isinstance(await call(replace(ROUTE, beat=2), "hello", {}), Answer)


@pytest.mark.slow
@pytest.mark.parametrize(("deadline", "takes"), [(0.02, 0.1), (2.0, 1.2)])
async def test_a_long_deadline_is_waited_for_and_a_short_one_leaves_time_for_a_pause_of_the_machine(
    deadline: float, takes: float
) -> None:
    async def answers(*_: object) -> Answer:
        await asyncio.sleep(takes)
        return Answer((1.0,), ("refund",), 1000 * takes)

    assert isinstance(await CanaryCall("m", answers, deadline)(ROUTE, "hello", {}), Answer)
