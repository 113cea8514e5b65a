"""The line from an ingress replica to the canary's process: many questions under way on one connection.

A call through Serve's handle takes 3 ms of processor time, more than a prediction; a line of JSON over a socket takes
a tenth of that. Serve still places, checks and restarts the process, and tells where it listens. What an answer, or
none, means for a rollout is the caller's matter.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass
from itertools import count
from typing import Any, Protocol

from mlops_assets.serving.routing import Absent, Answer, Refusal, VersionRef

log = logging.getLogger("mlops_assets.serving")

# A process that is not found so fast is not there; less than a question's deadline, which counts as a failure of it.
FIND_SECONDS = 0.5
# A question holds one text, which a request's body bounds; escaped it may take six times as many bytes.
LINE_BYTES = 1024 * 1024

Said = Answer | Refusal | Absent
_KINDS: dict[str, Callable[..., Said]] = {kind.__name__: kind for kind in (Answer, Refusal, Absent)}


@dataclass(frozen=True)
class Address:
    """Where a canary's process listens, and the word that opens the line."""

    host: str
    port: int
    secret: str


class Answers(Protocol):
    """What `CanaryHost.answer` does; it never raises."""

    async def __call__(
        self, model: str, ref: VersionRef, text: str, features: Mapping[str, float | None], traceparent: str | None
    ) -> Said: ...


class CanaryListener:
    """The canary's end: answers each question when its answer is there, whatever their order."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._secret = secrets.token_hex(16)
        self._server: asyncio.Server | None = None
        self._lines: set[asyncio.StreamWriter] = set()
        self._under_way: set[asyncio.Task[None]] = set()

    async def open(self, host: str) -> Address:
        """Listen on a free port of `host`."""
        self._server = await asyncio.start_server(self._serve, host, 0, limit=LINE_BYTES)
        port: int = self._server.sockets[0].getsockname()[1]
        return Address(host, port, self._secret)

    async def close(self) -> None:
        """Stop listening; open lines are cut."""
        if self._server is not None:
            self._server.close()
            for line in self._lines:
                line.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines.add(writer)
        try:
            if not hmac.compare_digest(await reader.readline(), self._secret.encode() + b"\n"):
                return
            while question := await reader.readline():
                task = asyncio.create_task(self._answer(json.loads(question), writer))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
        except (ConnectionError, ValueError) as error:  # ValueError: a line too long, or not JSON
            log.warning("a line to the canary ended: %s", type(error).__name__)
        finally:
            self._lines.discard(writer)
            writer.close()

    async def _answer(self, question: list[Any], writer: asyncio.StreamWriter) -> None:
        number, model, ref, *asked = question
        said = await self._answers(model, VersionRef(*ref), *asked)
        if not writer.is_closing():
            writer.write(_line([number, type(said).__name__, *astuple(said)]))


class CanaryLine:
    """An ingress replica's end; opens a line when there is something to ask and none is open.

    Args:
        find: where the canary's process listens now; may take long, or fail.
    """

    def __init__(self, find: Callable[[], Awaitable[Address]]) -> None:
        self._find = find
        self._opening = asyncio.Lock()
        self._line: _Line | None = None

    async def ask(
        self, model: str, ref: VersionRef, text: str, features: Mapping[str, float | None], traceparent: str | None
    ) -> Said:
        """Put one message to the canary; `traceparent` names the request's trace, if it has one.

        Raises:
            ConnectionError: its process is gone, or cannot be found.
        """
        line = await self._open_line()
        try:
            return await line.ask([model, astuple(ref), text, dict(features), traceparent])
        except asyncio.CancelledError:
            # Not answered in time: the other end may have vanished without a word, and the next one tries anew.
            if self._line is line:
                self._line = None
                line.retire()
            raise

    async def _open_line(self) -> _Line:
        if self._line is None or self._line.closed:
            async with self._opening:
                if self._line is None or self._line.closed:
                    self._line = await self._opened()
        return self._line

    async def _opened(self) -> _Line:
        try:
            return await asyncio.wait_for(self._found(), FIND_SECONDS)
        except Exception as error:  # its process is being started, or Serve cannot say: it is not there
            raise ConnectionError(f"the canary's process cannot be found: {type(error).__name__}") from error

    async def _found(self) -> _Line:
        return await _Line.open(await self._find())


class _Line:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[Said]] = {}
        self._retired = False
        self._listening = asyncio.create_task(self._listen(reader))

    @classmethod
    async def open(cls, address: Address) -> _Line:
        reader, writer = await asyncio.open_connection(address.host, address.port, limit=LINE_BYTES)
        writer.write(address.secret.encode() + b"\n")
        return cls(reader, writer)

    @property
    def closed(self) -> bool:
        return self._listening.done()

    async def ask(self, question: list[Any]) -> Said:
        if self.closed:
            raise ConnectionError("the canary's process closed the line")
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(_line([number, *question]))
            return await future
        finally:
            del self._waiting[number]
            if self._retired and not self._waiting:
                self._writer.close()

    def retire(self) -> None:
        """Ask nothing more; close when the last question is answered or given up."""
        self._retired = True
        if not self._waiting:
            self._writer.close()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                number, kind, *fields = json.loads(line)
                future = self._waiting.get(number)
                if future is not None and not future.done():
                    future.set_result(_said(kind, fields))
        self._writer.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionError("the canary's process closed the line"))


def _line(document: list[Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _said(kind: str, fields: list[Any]) -> Said:
    return _KINDS[kind](*(tuple(field) if isinstance(field, list) else field for field in fields))
