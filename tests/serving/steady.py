"""Customers who ask at a constant rate, however slowly they are answered; each outcome is kept.

The requests are made beforehand and the replies read by hand: a client's library would take more of the processors
than an answer does, and the load would be measured instead of the endpoint.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.serving.factories import MODEL
from tests.serving.world import Endpoint

CUSTOMERS = 500
TIMEOUT_SECONDS = 10.0
_TICK_SECONDS = 0.005
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_LAST = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_PROBLEM = re.compile(rb"content-type: *application/problem\+json", re.IGNORECASE)


@dataclass
class Seen:
    """What came back.

    Attributes:
        broken: requests without any reply: resets, time-outs.
        milliseconds: of the requests that were answered with 200, from when they were due.
        not_problems: refusals that were no problem document.
        seconds: from the first request to the last reply.
        processor_seconds: what making the requests took.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    details: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    arms: Counter[str] = field(default_factory=Counter)
    acknowledged: list[str] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    not_problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    processor_seconds: float = 0.0

    @property
    def failures(self) -> dict[str, int]:
        """Whatever was no answer, by kind; empty when nobody was failed."""
        refused = {f"{status}": n for status, n in self.statuses.items() if status != 200}
        return refused | dict(self.broken) | {d: n for d, n in self.details.items() if refused}

    def percentile(self, share: float) -> float:
        return sorted(self.milliseconds)[int(share * (len(self.milliseconds) - 1))]

    def note(self, reply: Reply) -> None:
        if isinstance(reply, str):
            self.broken[reply] += 1
            return
        head, body, milliseconds = reply
        status = int(head[9:12])
        self.statuses[status] += 1
        if status != 200:
            self.details[body[:200].decode()] += 1
            if not _PROBLEM.search(head):
                self.not_problems.append(body.decode())
            return
        document = json.loads(body)
        self.milliseconds.append(milliseconds)
        self.acknowledged.append(document["prediction_id"])
        self.sources[document["features_source"]] += 1
        self.arms[document["arm"]] += 1


# Head, body and milliseconds; or how the request came to nothing.
Reply = tuple[bytes, bytes, float] | str


class Line(asyncio.Protocol):
    """One connection; carries one request at a time."""

    def __init__(self, done: Callable[[Line, Reply], None]) -> None:
        self._done = done
        self._received = b""
        self.due: float | None = None  # of the request that is under way
        self.is_open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        self._received, self.due = b"", due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head) if found else None
        if length is not None and self.due is not None and len(body) >= int(length[1]):
            self.is_open = _LAST.search(head) is None
            self._end((head, body, 1000 * (time.monotonic() - self.due)))

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self.due is not None:
            self._end(f"connection lost: {type(error).__name__}")

    def close(self) -> None:
        self._transport.close()

    def give_up(self) -> None:
        self._transport.abort()
        self.is_open = False
        self._end("time-out")

    def _end(self, reply: Reply) -> None:
        self.due = None
        self._done(self, reply)


class Lines:
    """Up to so many connections to one model; what is due when none is free waits for one, and the wait counts."""

    def __init__(self, endpoint: Endpoint, model: str, most: int, after: Callable[[Reply], None]) -> None:
        self._address = (endpoint.settings.host, endpoint.settings.serve_port)
        self._requests = [_request(model, number) for number in range(CUSTOMERS)]
        self._most = most
        self._after = after
        self._free: deque[Line] = deque()  # taken in turn, so that none is idle for long
        self._busy: set[Line] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: deque[tuple[bytes, float]] = deque()

    def ask(self, number: int, due: float) -> None:
        self._waiting.append((self._requests[number % CUSTOMERS], due))
        self._carry_on()

    def give_up_late(self) -> None:
        """End what has been under way, or has waited, for too long."""
        late = time.monotonic() - TIMEOUT_SECONDS
        for line in [line for line in self._busy if line.due is not None and line.due < late]:
            line.give_up()
        while self._waiting and self._waiting[0][1] < late:
            self._waiting.popleft()
            self._after("never sent")

    async def close(self) -> None:
        """Return once nothing is under way."""
        while self._busy or self._waiting or self._opening:
            self.give_up_late()
            await asyncio.sleep(_TICK_SECONDS)
        for line in self._free:
            line.close()

    def _carry_on(self) -> None:
        while self._waiting and self._free:
            line = self._free.popleft()
            if line.is_open:
                self._busy.add(line)
                line.send(*self._waiting.popleft())
        room = self._most - len(self._busy) - len(self._opening)
        for _ in range(min(room, len(self._waiting) - len(self._opening))):
            task = asyncio.ensure_future(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        try:
            _, line = await asyncio.get_running_loop().create_connection(lambda: Line(self._done), *self._address)
        except OSError as error:
            if self._waiting:
                self._waiting.popleft()
                self._after(f"no connection: {type(error).__name__}")
            return
        self._free.append(line)
        self._carry_on()

    def _done(self, line: Line, reply: Reply) -> None:
        self._busy.discard(line)
        if line.is_open:
            self._free.append(line)
        self._after(reply)
        self._carry_on()


class Steady:
    """A load of `rate` requests a second in a thread of its own, for as long as the block lasts.

    Args:
        connections: at most so many at a time.
    """

    def __init__(self, endpoint: Endpoint, rate: float, model: str = MODEL, connections: int = 64) -> None:
        self.seen = Seen()
        self._model = model
        self.rate = rate
        self._endpoint = endpoint
        self._connections = connections
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Steady:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    async def _run(self) -> None:
        lines = Lines(self._endpoint, self._model, self._connections, self.seen.note)
        begun, sent = time.monotonic(), 0
        while not self._stopped.is_set():
            while (due := begun + sent / self.rate) <= time.monotonic():
                lines.ask(sent, due)
                sent += 1
            lines.give_up_late()
            await asyncio.sleep(_TICK_SECONDS)
        await lines.close()
        self.seen.seconds, self.seen.processor_seconds = time.monotonic() - begun, time.thread_time()


def closed_loop(endpoint: Endpoint, seconds: float, clients: int, model: str = MODEL) -> Seen:
    """What so many clients see who ask without a pause."""
    seen = Seen(seconds=seconds)

    async def run() -> None:
        end, asked = time.monotonic() + seconds, 0

        def go_on() -> None:
            nonlocal asked
            lines.ask(asked, time.monotonic())
            asked += 1

        def take(reply: Reply) -> None:
            if time.monotonic() < end:
                seen.note(reply)
                go_on()

        lines = Lines(endpoint, model, clients, take)
        for _ in range(clients):
            go_on()
        await asyncio.sleep(seconds)
        await lines.close()

    begun = time.thread_time()
    asyncio.run(run())
    seen.processor_seconds = time.thread_time() - begun
    return seen


def capacity(endpoint: Endpoint, seconds: float = 3.0, clients: int = 24, model: str = MODEL) -> float:
    """Requests a second that are answered when so many clients ask without a pause."""
    seen = closed_loop(endpoint, seconds, clients, model)
    assert seen.statuses[200], f"nobody was answered: {seen.failures}"
    return seen.statuses[200] / seconds


def _request(model: str, number: int) -> bytes:
    body = json.dumps({"text": "where is my parcel?", "customer_id": f"C-{number}"})
    head = f"POST /models/{model}/predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
