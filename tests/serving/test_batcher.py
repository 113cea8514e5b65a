"""Requests that wait together are predicted together; each gets its own answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from mlops_assets.serving import batcher as batching
from mlops_assets.serving.batcher import Floats, MicroBatcher, NetworkFailed, Overloaded, check_networks

pytestmark = pytest.mark.anyio

NOTHING = np.zeros(1, np.float32)


@dataclass(frozen=True)
class Lengths:
    probabilities: Floats


@dataclass
class LengthPredictor:
    """Answers a text's length; waits at the gate, refuses the text "bad"."""

    entered: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)
    batches: list[list[str]] = field(default_factory=list)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, 5)

    def predict(self, texts: Sequence[str], features: Floats) -> Lengths:
        self.entered.set()
        self.gate.wait(5)
        self.batches.append(list(texts))
        if "bad" in texts:
            raise ValueError("bad text")
        assert features.shape == (len(texts), 1)
        return Lengths(np.array([[len(text)] for text in texts], np.float32))


async def test_what_is_pending_is_run_in_chunks_first_come_first_served() -> None:
    predictor = LengthPredictor()
    batcher = MicroBatcher(predictor, chunk=2)
    futures = [batcher.submit("x" * length, NOTHING) for length in (1, 9, 3, 7, 5)]
    predictor.gate.set()
    assert [row[0] for row in await asyncio.gather(*futures)] == [1, 9, 3, 7, 5]
    waited = [[len(text) for text in batch] for batch in predictor.batches]
    assert waited in ([[1], [9, 3], [7, 5]], [[1, 9], [3, 7], [5]])
    batcher.close()


async def asked_again_and_again(batcher: MicroBatcher, times: int) -> None:
    for _ in range(times):
        await batcher.submit("x", NOTHING)
        await asyncio.sleep(0.01)


async def test_callers_that_ask_again_together_are_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "GATHER", 1e6)  # as long as it takes
    predictor = LengthPredictor()
    batcher = MicroBatcher(predictor, chunk=3)
    callers = [asyncio.create_task(asked_again_and_again(batcher, 5)) for _ in range(3)]
    await predictor.reached()
    predictor.gate.set()
    await asyncio.wait_for(asyncio.gather(*callers), 5)
    batcher.close()
    assert [len(batch) for batch in predictor.batches][1:5] == [3, 3, 3, 3]


async def test_who_asks_alone_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "GATHER", 1e6)
    predictor = LengthPredictor()
    predictor.gate.set()
    batcher = MicroBatcher(predictor)
    await asyncio.wait_for(asked_again_and_again(batcher, 5), 5)
    batcher.close()


async def test_callers_that_do_not_come_back_are_not_waited_for() -> None:
    predictor = LengthPredictor()
    batcher = MicroBatcher(predictor)
    callers = [asyncio.create_task(asked_again_and_again(batcher, times)) for times in (1, 1, 1, 5)]
    await predictor.reached()
    predictor.gate.set()
    await asyncio.wait_for(asyncio.gather(*callers), 5)
    batcher.close()


async def test_a_text_that_cannot_be_predicted_does_not_fail_its_neighbours() -> None:
    predictor = LengthPredictor()
    batcher = MicroBatcher(predictor)
    futures = {text: batcher.submit(text, NOTHING) for text in ("good", "bad", "fine!")}
    predictor.gate.set()
    assert (await futures["good"])[0] == 4
    assert (await futures["fine!"])[0] == 5
    with pytest.raises(ValueError, match="bad text"):
        await futures["bad"]
    batcher.close()


async def test_a_caller_that_has_gone_costs_no_computing_and_no_neighbour_its_answer() -> None:
    predictor = LengthPredictor()
    batcher = MicroBatcher(predictor)
    taken = batcher.submit("taken", NOTHING)
    await predictor.reached()
    gone, there = batcher.submit("gone", NOTHING), batcher.submit("there!", NOTHING)
    gone.cancel()
    taken.cancel()
    predictor.gate.set()
    assert (await there)[0] == 6
    batcher.close()
    assert predictor.batches == [["taken"], ["there!"]]


@dataclass
class TenMilliseconds:
    """Answers each text after ten milliseconds."""

    seconds: float = 0.01
    computed: int = 0

    def predict(self, texts: Sequence[str], features: Floats) -> Lengths:
        assert len(features) == len(texts)
        time.sleep(self.seconds * len(texts))
        self.computed += len(texts)
        return Lengths(np.ones((len(texts), 1), np.float32))


async def test_what_would_wait_too_long_is_refused_at_once_and_the_rest_is_in_time() -> None:
    batcher = MicroBatcher(TenMilliseconds(), patience=0.4)
    for _ in range(3):
        await batcher.submit("x", NOTHING)  # it learns what a text takes
    begun, waiting = time.monotonic(), []
    while not batcher.full:
        waiting.append(batcher.submit("x", NOTHING))
    with pytest.raises(Overloaded, match="waiting already"):
        batcher.submit("x", NOTHING)
    assert time.monotonic() - begun < 0.2
    assert 8 <= len(waiting) <= 60  # about 40 texts of ten milliseconds fit
    batcher.close()
    await asyncio.wait_for(asyncio.wait(waiting), 1)


async def test_what_waited_too_long_is_not_computed() -> None:
    predictor = LengthPredictor()
    batcher = MicroBatcher(predictor, patience=0.05)
    taken = batcher.submit("first", NOTHING)
    await predictor.reached()
    late = batcher.submit("late", NOTHING)
    await asyncio.sleep(0.06)
    predictor.gate.set()
    assert (await taken)[0] == 5
    with pytest.raises(Overloaded, match="waited longer than"):
        await late
    batcher.close()
    assert predictor.batches == [["first"]]


@pytest.fixture
def hanging() -> Iterator[LengthPredictor]:
    """Its gate is open in the end, so that no thread hangs longer than its test."""
    predictor = LengthPredictor()
    yield predictor
    predictor.gate.set()


@dataclass
class OneByOne(LengthPredictor):
    """Waits at the gate for each call anew."""

    def predict(self, texts: Sequence[str], features: Floats) -> Lengths:
        answers = super().predict(texts, features)
        self.gate.clear()
        self.entered.clear()
        return answers


@pytest.mark.slow
async def test_what_waits_is_refused_in_time_while_the_network_hangs() -> None:
    predictor = OneByOne()
    batcher = MicroBatcher(predictor, chunk=1, patience=0.6)
    first = batcher.submit("first", NOTHING)
    await predictor.reached()
    hangs, taken_with_it = batcher.submit("hangs", NOTHING), batcher.submit("taken with it", NOTHING)
    predictor.gate.set()
    assert (await first)[0] == 5
    await predictor.reached()
    still_pending = batcher.submit("still pending", NOTHING)
    for refused in (taken_with_it, still_pending):
        with pytest.raises(Overloaded, match="waited longer than"):
            await asyncio.wait_for(refused, 2)
    assert batcher.waiting == 1
    predictor.gate.set()
    assert (await hangs)[0] == 5
    batcher.close()


@pytest.mark.slow
async def test_nothing_new_is_taken_while_a_run_is_overdue(hanging: LengthPredictor) -> None:
    batcher = MicroBatcher(hanging, patience=0.5)
    hangs = batcher.submit("hangs", NOTHING)
    await hanging.reached()
    assert not batcher.full
    await asyncio.sleep(0.6)
    assert batcher.full
    with pytest.raises(Overloaded):
        batcher.submit("late", NOTHING)
    hanging.gate.set()
    assert (await hangs)[0] == 5
    assert not batcher.full
    batcher.close()


@pytest.mark.slow
async def test_a_run_that_takes_as_long_as_ever_is_not_overdue() -> None:
    batcher = MicroBatcher(TenMilliseconds(0.4), patience=0.2)
    await batcher.submit("x", NOTHING)  # it learns what a text takes
    second = batcher.submit("x", NOTHING)
    await asyncio.sleep(0.3)
    assert not batcher.full
    assert (await second)[0] == 1
    batcher.close()


@pytest.mark.slow
async def test_a_network_that_hangs_is_told_to_its_callers_and_to_whoever_can_end_the_process(
    hanging: LengthPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "HUNG_SECONDS", 0.5)
    batcher = MicroBatcher(hanging, patience=0.1)
    hangs = batcher.submit("hangs", NOTHING)
    await hanging.reached()
    check_networks()
    batcher.close()  # its version is dropped meanwhile
    with pytest.raises(NetworkFailed):
        await asyncio.wait_for(hangs, 2)
    with pytest.raises(NetworkFailed):
        check_networks()
    hanging.gate.set()
    await asyncio.to_thread(batcher._thread.join, 5)
    check_networks()


@dataclass
class Leaves(TenMilliseconds):
    """Raises at the text "bad" what no caller could catch."""

    error: BaseException = field(default_factory=SystemExit)

    def predict(self, texts: Sequence[str], features: Floats) -> Lengths:
        if "bad" in texts:
            raise self.error
        return super().predict(texts, features)


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration(), asyncio.CancelledError()])
async def test_a_network_that_leaves_fails_its_text_and_answers_the_next(error: BaseException) -> None:
    batcher = MicroBatcher(Leaves(error=error))
    bad, neighbour = batcher.submit("bad", NOTHING), batcher.submit("good", NOTHING)
    with pytest.raises(NetworkFailed, match=type(error).__name__):
        await asyncio.wait_for(bad, 1)
    assert (await asyncio.wait_for(neighbour, 1))[0] == 1
    assert (await asyncio.wait_for(batcher.submit("good", NOTHING), 1))[0] == 1
    batcher.close()


@pytest.mark.slow
async def test_a_single_slow_text_does_not_shut_the_door_for_good() -> None:
    slow = TenMilliseconds()
    slow.seconds = 0.6
    batcher = MicroBatcher(slow, patience=0.5)
    for _ in range(2):
        assert (await batcher.submit("x", NOTHING))[0] == 1
    batcher.close()


@pytest.mark.slow
async def test_a_machine_that_stood_still_during_a_run_takes_as_much_as_before() -> None:
    network = TenMilliseconds(seconds=0.002)
    batcher = MicroBatcher(network, patience=0.4)
    for seconds in (0.002, 0.002, 0.5, 0.002):
        network.seconds = seconds
        await batcher.submit("x", NOTHING)
    answers = await asyncio.gather(*(batcher.submit("x", NOTHING) for _ in range(40)))
    assert len(answers) == 40
    batcher.close()


@pytest.mark.slow
async def test_what_is_slow_from_now_on_is_soon_known() -> None:
    network = TenMilliseconds(seconds=0.001)
    batcher = MicroBatcher(network, patience=0.4)
    await batcher.submit("x", NOTHING)
    network.seconds = 0.02
    for _ in range(20):
        await batcher.submit("x", NOTHING)
    waiting = []
    while not batcher.full:
        waiting.append(batcher.submit("x", NOTHING))
    assert len(waiting) <= 30  # 20 texts of twenty milliseconds fit
    batcher.close()
    await asyncio.wait_for(asyncio.wait(waiting), 2)


async def test_closing_answers_what_is_pending() -> None:
    predictor = LengthPredictor()
    predictor.gate.set()
    batcher = MicroBatcher(predictor)
    future = batcher.submit("abc", NOTHING)
    batcher.close()
    assert (await asyncio.wait_for(future, 1))[0] == 3
    with pytest.raises(Overloaded):
        batcher.submit("late", NOTHING)


async def test_closing_does_not_wait_for_a_network_that_hangs(hanging: LengthPredictor) -> None:
    batcher = MicroBatcher(hanging)
    hangs = batcher.submit("hangs", NOTHING)
    await hanging.reached()
    begun = time.monotonic()
    batcher.close()
    assert time.monotonic() - begun < 1
    hanging.gate.set()
    assert (await hangs)[0] == 5
