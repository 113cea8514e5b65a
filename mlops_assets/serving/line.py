"""A line between two of our processes: many questions under way on one connection.

A call through Serve's handle takes 3 ms of processor time, more than a prediction; over a socket a tenth of that.
Serve still places, checks and restarts the processes, and tells where they listen. What is said is pickled, as Ray
does it, but nothing is read from who does not know the listener's secret. What an answer, or none, means is the
caller's matter.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import pickle
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

log = logging.getLogger("mlops_assets.serving")

_LENGTH_BYTES = 4


@dataclass(frozen=True)
class Address:
    """Where a process listens, and the word that opens the line."""

    host: str
    port: int
    secret: str


class Listener:
    """The end that answers, each question when its answer is there, whatever their order.

    Args:
        methods: what can be asked, by name. One that raises ends the line of who asked.
    """

    def __init__(self, **methods: Callable[..., Awaitable[Any]]) -> None:
        self._methods = methods
        self._secret = secrets.token_hex(16)
        self._server: asyncio.Server | None = None
        self._lines: set[asyncio.StreamWriter] = set()
        self._under_way: set[asyncio.Task[None]] = set()

    async def open(self, host: str) -> Address:
        """Listen on a free port of `host`."""
        self._server = await asyncio.start_server(self._serve, host, 0)
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
            if not hmac.compare_digest(await reader.readexactly(len(self._secret)), self._secret.encode()):
                return
            while True:
                task = asyncio.create_task(self._answer(writer, *await _hear(reader)))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
        except asyncio.IncompleteReadError:
            pass  # the other end has closed it
        except Exception as error:  # noqa: BLE001 - whatever was said: this line ends, and the others go on
            log.warning("a line ended: %s", type(error).__name__)
        finally:
            self._lines.discard(writer)
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, number: int, method: str, *arguments: Any) -> None:
        try:
            answer = await self._methods[method](*arguments)
        except Exception:
            log.exception("%s could not be answered", method)
            writer.close()
        else:
            if not writer.is_closing():
                _say(writer, number, answer)


class Line:
    """The end that asks; connects when there is something to ask and no connection.

    Args:
        find: where the process listens now; may take long, or fail.
        find_seconds: a process that is not found so fast is not there; None: whoever asks has a deadline of its own.
    """

    def __init__(self, find: Callable[[], Awaitable[Address]], find_seconds: float | None = None) -> None:
        self._find = find
        self._find_seconds = find_seconds
        self._opening = asyncio.Lock()
        self._connection: _Connection | None = None

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method at the other end.

        Raises:
            ConnectionError: its process is gone, or cannot be found, or the method failed.
        """
        connection = await self._open()
        try:
            return await connection.ask(method, *arguments)
        except asyncio.CancelledError:
            # Not answered in time: the other end may have vanished without a word, and the next one tries anew.
            if self._connection is connection:
                self._connection = None
                connection.retire()
            raise

    async def _open(self) -> _Connection:
        if self._connection is None or self._connection.closed:
            async with self._opening:
                if self._connection is None or self._connection.closed:
                    self._connection = await self._opened()
        return self._connection

    async def _opened(self) -> _Connection:
        try:
            return await asyncio.wait_for(self._found(), self._find_seconds)
        except Exception as error:  # its process is being started, or Serve cannot say: it is not there
            raise ConnectionError(f"the process cannot be found: {type(error).__name__}") from error

    async def _found(self) -> _Connection:
        return await _Connection.open(await self._find())


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._retired = False
        self._listening = asyncio.create_task(self._listen(reader))

    @classmethod
    async def open(cls, address: Address) -> _Connection:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(address.secret.encode())
        return cls(reader, writer)

    @property
    def closed(self) -> bool:
        return self._listening.done()

    async def ask(self, method: str, *arguments: Any) -> Any:
        if self.closed:
            raise ConnectionError("the process closed the line")
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            _say(self._writer, number, method, *arguments)
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
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    number, answer = await _hear(reader)
                    future = self._waiting.get(number)
                    if future is not None and not future.done():
                        future.set_result(answer)
        finally:
            self._writer.close()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(ConnectionError("the process closed the line"))


def _say(writer: asyncio.StreamWriter, *said: Any) -> None:
    frame = pickle.dumps(said, pickle.HIGHEST_PROTOCOL)
    writer.write(len(frame).to_bytes(_LENGTH_BYTES, "big") + frame)


async def _hear(reader: asyncio.StreamReader) -> Any:
    length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
    return pickle.loads(await reader.readexactly(length))
