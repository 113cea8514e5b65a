"""Customers who ask at a constant rate, however slowly they are answered; each outcome is kept."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.serving.factories import MODEL
from tests.serving.world import Endpoint

CUSTOMERS = 500
TIMEOUT_SECONDS = 10.0


@dataclass
class Seen:
    """What came back.

    Attributes:
        broken: requests without any reply: resets, time-outs.
        milliseconds: of the requests that were answered with 200.
        not_problems: refusals that were no problem document.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    details: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    arms: Counter[str] = field(default_factory=Counter)
    acknowledged: list[str] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    not_problems: list[str] = field(default_factory=list)

    @property
    def failures(self) -> dict[str, int]:
        """Whatever was no answer, by kind; empty when nobody was failed."""
        refused = {f"{status}": n for status, n in self.statuses.items() if status != 200}
        return refused | dict(self.broken) | {d: n for d, n in self.details.items() if refused}

    def percentile(self, share: float) -> float:
        return sorted(self.milliseconds)[int(share * (len(self.milliseconds) - 1))]


class Steady:
    """A load of `rate` requests a second in a thread of its own, for as long as the block lasts.

    Args:
        connections: at most so many at a time; 0: one for each request under way.
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
        async with _session(self._endpoint, self._connections) as session, asyncio.TaskGroup() as requests:
            begun, sent = time.monotonic(), 0
            while not self._stopped.is_set():
                while sent < (time.monotonic() - begun) * self.rate:
                    requests.create_task(ask(session, self._model, sent, self.seen))
                    sent += 1
                await asyncio.sleep(0.005)


def capacity(endpoint: Endpoint, seconds: float = 3.0, clients: int = 24, model: str = MODEL) -> float:
    """Requests a second that are answered when so many clients ask without a pause."""
    seen = Seen()

    async def run() -> None:
        end = time.monotonic() + seconds

        async def client(number: int) -> None:
            while time.monotonic() < end:
                await ask(session, model, number, seen)
                number += clients

        async with _session(endpoint, clients) as session:
            await asyncio.gather(*(client(number) for number in range(clients)))

    asyncio.run(run())
    return seen.statuses[200] / seconds


async def ask(session: aiohttp.ClientSession, model: str, number: int, seen: Seen) -> None:
    """One request of one of the customers."""
    body = {"text": "where is my parcel?", "customer_id": f"C-{number % CUSTOMERS}"}
    begun = time.monotonic()
    try:
        async with session.post(f"/models/{model}/predict", json=body) as reply:
            document = await reply.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        seen.broken[type(error).__name__] += 1
        return
    seen.statuses[reply.status] += 1
    if reply.status == 200:
        _note(document, 1000 * (time.monotonic() - begun), seen)
        return
    if reply.content_type != "application/problem+json":
        seen.not_problems.append(str(document))
    seen.details[str(document)[:200]] += 1


def _note(document: dict[str, Any], milliseconds: float, seen: Seen) -> None:
    seen.milliseconds.append(milliseconds)
    seen.acknowledged.append(document["prediction_id"])
    seen.sources[document["features_source"]] += 1
    seen.arms[document["arm"]] += 1


def _session(endpoint: Endpoint, connections: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        endpoint.settings.endpoint,
        connector=aiohttp.TCPConnector(limit=connections),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
    )
