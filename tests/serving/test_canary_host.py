"""The canary's process answers for versions that are slow, hang, exit or cannot be loaded, and outlives all of them."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator

import pytest

from mlops_assets.serving import batcher, canary_host
from mlops_assets.serving.batcher import NetworkFailed
from mlops_assets.serving.canary_host import CanaryHost, Held
from mlops_assets.serving.routing import Absent, Answer, Refusal, VersionRef
from mlops_assets.spec import ModelSpec, ServingSpec
from tests.serving.networks import Door, Network, a_door, ref, versions

pytestmark = pytest.mark.anyio


@pytest.fixture
def door() -> Iterator[Door]:
    with a_door() as door:
        yield door


def host_of(*models: str, deadline_ms: float = 50.0) -> CanaryHost:
    return CanaryHost([ModelSpec(name=model, serving=ServingSpec(deadline_ms=deadline_ms)) for model in models])


async def told(host: CanaryHost, wanted: dict[str, VersionRef]) -> Held:
    return await asyncio.wait_for(asyncio.to_thread(host.hold, wanted), 5)


async def ask(host: CanaryHost, text: str, version: int = 2) -> Answer | Refusal | Absent:
    return await asyncio.wait_for(host.answer("m", ref(version), text, {}, None), 5)


async def hung(host: CanaryHost, door: Door) -> asyncio.Task[Answer | Refusal | Absent]:
    """The request that is in the network of version 2 for as long as the door is closed."""
    task = asyncio.create_task(ask(host, "stop"))
    assert await asyncio.to_thread(door.held.wait, 5)
    return task


async def test_what_waits_longer_than_the_models_deadline_for_its_turn_finds_the_canary_absent(
    monkeypatch: pytest.MonkeyPatch, door: Door
) -> None:
    versions(monkeypatch, lambda _: Network(door))
    host = host_of("m")
    await told(host, {"m": ref(2)})
    first = await hung(host, door)
    said = await ask(host, "after it")
    assert isinstance(said, Absent)
    assert "longer than 0.05 s for its turn" in said.reason
    door.opened.set()
    assert isinstance(await first, Answer)


@pytest.mark.parametrize("failure", [ValueError, SystemExit])
async def test_what_the_network_raises_is_the_versions_failure(
    monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    def refuses(texts: object) -> None:
        if texts == ["bad"]:
            raise failure

    versions(monkeypatch, lambda _: Network(refuses))
    host = host_of("m")
    await told(host, {"m": ref(2)})
    assert isinstance(await ask(host, "bad"), Refusal)
    assert isinstance(await ask(host, "good"), Answer)


async def test_a_version_that_hangs_is_dropped_without_waiting_for_it(
    monkeypatch: pytest.MonkeyPatch, door: Door
) -> None:
    versions(monkeypatch, lambda _: Network(door))
    host = host_of("m", "other")
    await told(host, {"m": ref(2)})
    await hung(host, door)
    assert (await told(host, {"m": ref(3), "other": ref(4)})).failed == {}
    assert isinstance(await ask(host, "hello", version=3), Answer)


async def test_a_process_in_which_a_version_hangs_is_ill_also_when_the_version_is_dropped(
    monkeypatch: pytest.MonkeyPatch, door: Door
) -> None:
    monkeypatch.setattr(batcher, "HUNG_SECONDS", 0.05)
    versions(monkeypatch, lambda _: Network(door))
    host = host_of("m")
    await told(host, {"m": ref(2)})
    host.check()
    await hung(host, door)
    await told(host, {})
    await asyncio.sleep(0.2)
    with pytest.raises(NetworkFailed):
        host.check()


async def test_a_process_in_which_a_version_hangs_in_its_loading_is_ill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary_host, "LOADING_SECONDS", 0.05)
    loaded = threading.Event()
    versions(monkeypatch, lambda _: Network(lambda _: loaded.wait(5)))
    host = host_of("m")
    telling = asyncio.create_task(told(host, {"m": ref(2)}))
    await asyncio.sleep(0.2)
    with pytest.raises(RuntimeError, match="hangs in its loading"):
        host.check()
    loaded.set()
    assert (await telling).failed == {}
    host.check()


async def test_a_version_that_cannot_be_loaded_is_tried_again_once_it_was_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def load(version: int) -> Network:
        tried.append(version)
        if len(tried) == 1:
            raise OSError("its files are away")
        return Network()

    versions(monkeypatch, load)
    host = host_of("m")
    for _ in range(3):
        assert (await told(host, {"m": ref(2)})).failed == {"m": "OSError: its files are away"}
    assert tried == [2]
    await told(host, {})
    assert (await told(host, {"m": ref(2)})).failed == {}
    assert isinstance(await ask(host, "hello"), Answer)


async def test_a_version_that_exits_in_its_loading_ends_its_rollout_and_not_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions(monkeypatch, lambda _: Network(lambda _: sys.exit(3)))
    assert "exits" in (await told(host_of("m"), {"m": ref(2)})).failed["m"]
