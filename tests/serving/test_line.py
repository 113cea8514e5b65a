"""The line between two processes, over real sockets: what is asked is answered, and a dead end is told at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mlops_assets.serving.line import Address, Line, Listener
from mlops_assets.serving.routing import Answer, Refusal, VersionRef

pytestmark = pytest.mark.anyio

REF = VersionRef(2, "/models/2", "sha256")


class Canary:
    """Answers with the length of the text, says no to some, and keeps others waiting until it is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.heard = asyncio.Event()
        self.let_go = asyncio.Event()
        self.listener = Listener(answer=self._answer)

    async def _answer(self, ref: VersionRef, text: str) -> Answer | Refusal:
        self.asked.append(text)
        self.heard.set()
        if text.startswith("wait"):
            await self.let_go.wait()
        if text == "raise":
            raise ValueError(text)
        if text == "no":
            return Refusal("ValueError")
        return Answer((float(len(text)),), (text,), ref.version)


@asynccontextmanager
async def canary() -> AsyncIterator[tuple[Canary, Address]]:
    one = Canary()
    address = await one.listener.open("127.0.0.1")
    yield one, address
    await one.listener.close()


def line_to(*addresses: Address) -> Line:
    """A line that finds the first address first, and so on."""
    found = iter(addresses)

    async def find() -> Address:
        return next(found)

    return Line(find)


async def ask(line: Line, text: str) -> Answer | Refusal:
    said: Answer | Refusal = await line.ask("answer", REF, text)
    return said


@pytest.mark.parametrize("text", ['line\nbreak "é" 😀', "", "x" * 2_000_000])
async def test_a_question_arrives_whole_and_its_answer_too(text: str) -> None:
    async with canary() as (_, address):
        assert await ask(line_to(address), text) == Answer((float(len(text)),), (text,), 2)


async def test_a_no_comes_back_as_one() -> None:
    async with canary() as (_, address):
        assert await ask(line_to(address), "no") == Refusal("ValueError")


async def test_a_slow_answer_holds_up_nobody_else() -> None:
    async with canary() as (one, address):
        line = line_to(address)
        slow = asyncio.create_task(ask(line, "wait"))
        await one.heard.wait()
        replies = await asyncio.gather(*(ask(line, "x" * n) for n in range(1, 40)))
        assert [said.probabilities[0] for said in replies if isinstance(said, Answer)] == list(range(1, 40))
        assert not slow.done()
        one.let_go.set()
        assert isinstance(await slow, Answer)


async def test_a_death_of_the_process_is_told_at_once_and_its_successor_is_asked_next() -> None:
    async with canary() as (first, one), canary() as (second, other):
        line = line_to(one, other)
        lost = asyncio.create_task(ask(line, "wait"))
        await first.heard.wait()
        await first.listener.close()
        with pytest.raises(ConnectionError):
            await lost
        assert isinstance(await ask(line, "hello"), Answer)
        assert second.asked == ["hello"]


async def test_a_process_that_vanished_without_a_word_is_looked_for_anew() -> None:
    async with canary() as (first, one), canary() as (second, other):
        line = line_to(one, other)
        early = asyncio.create_task(ask(line, "wait, but not for ever"))
        await first.heard.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(line, "wait"), 0.05)
        assert isinstance(await ask(line, "hello"), Answer)
        assert second.asked == ["hello"]
        first.let_go.set()  # it was only slow: what it was asked before is still answered
        assert isinstance(await early, Answer)


async def test_a_method_that_fails_is_told_at_once_and_can_be_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    async with canary() as (_, address):
        line = line_to(address, address)
        with pytest.raises(ConnectionError):
            await ask(line, "raise")
        assert "answer could not be answered" in caplog.text
        assert isinstance(await ask(line, "hello"), Answer)


async def test_who_does_not_know_the_secret_gets_no_answer() -> None:
    async with canary() as (one, address):
        with pytest.raises(ConnectionError):
            await ask(line_to(Address(address.host, address.port, "x" * len(address.secret))), "hello")
        assert one.asked == []


@pytest.mark.parametrize("noise", [b"\x00\x00\x00\x08not said", b"\x00\x00\x00\x00", b"GET / HTTP/1.1\r\n\r\n" * 9])
async def test_what_is_no_question_ends_that_line_alone(noise: bytes) -> None:
    async with canary() as (_, address):
        good = line_to(address)
        assert isinstance(await ask(good, "hello"), Answer)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(address.secret.encode() + noise)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert isinstance(await ask(good, "hello"), Answer)


async def test_a_process_that_is_not_there_is_told_in_time() -> None:
    async def find() -> Address:
        await asyncio.Event().wait()  # as Serve does while it starts the process
        raise AssertionError

    with pytest.raises(ConnectionError, match="cannot be found"):
        await ask(Line(find, find_seconds=0.05), "hello")
