"""Plays customers: sends messages to the endpoint as they arrived, and their labels when they became known.

It knows only the HTTP API. Every request is counted; one that is not answered is a failure, whatever
the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import httpx
import polars as pl

from mlops_assets.settings import Settings

CONNECTIONS = 4
CALM_CONNECTIONS = 2  # while a canary's latency is judged, the load leaves two cores some room
_TIMEOUT = httpx.Timeout(15.0)


@dataclass
class Ledger:
    """What was sent and what came of it."""

    sent: int = 0
    answered: int = 0
    failed: int = 0
    labels: int = 0
    failures: list[str] = field(default_factory=list)
    prediction_of: dict[str, str] = field(default_factory=dict)  # message id -> prediction id


class Customers:
    """Sends traffic for one model and remembers which prediction belongs to which message."""

    def __init__(self, settings: Settings, model: str, messages: pl.DataFrame) -> None:
        self.ledger = Ledger()
        self._url = settings.endpoint
        self._model = model
        self._messages = messages.sort("event_timestamp")
        self._told: set[str] = set()
        self._round = 0

    def send(self, start: datetime, end: datetime) -> int:
        """Send the messages of [start, end) in the order in which they arrived; returns how many."""
        rows = self._between(start, end).to_dicts()
        asyncio.run(self._all([("predict", _request(row), row["message_id"]) for row in rows]))
        return len(rows)

    def repeat(self, start: datetime, end: datetime, at: datetime, limit: int) -> int:
        """Send up to `limit` messages of [start, end) again as load, under fresh ids and without labels.

        Each round comes from customers of its own, so that it is spread over both arms like new traffic.
        """
        self._round += 1
        rows = self._between(start, end).head(limit).to_dicts()
        posts = []
        for row in rows:
            body = {**_request(row), "event_timestamp": at.isoformat(), "repeat": True}
            body["customer_id"] = f"{row['customer_id'] or 'unknown'}~{self._round}"
            posts.append(("predict", body, None))
        asyncio.run(self._all(posts, CALM_CONNECTIONS))
        return len(posts)

    def tell_labels(self, known_by: datetime) -> int:
        """Send every label that is known at `known_by` and was not sent yet; returns how many."""
        due = self._messages.filter(pl.col("label").is_not_null() & (pl.col("label_timestamp") <= known_by))
        posts = []
        for row in due.select("message_id", "label", "label_timestamp").to_dicts():
            prediction = self.ledger.prediction_of.get(row["message_id"])
            if prediction is not None and row["message_id"] not in self._told:
                self._told.add(row["message_id"])
                body = {
                    "prediction_id": prediction,
                    "label": row["label"],
                    "label_timestamp": row["label_timestamp"].isoformat(),
                }
                posts.append(("feedback", body, None))
        asyncio.run(self._all(posts))
        self.ledger.labels += len(posts)
        return len(posts)

    def _between(self, start: datetime, end: datetime) -> pl.DataFrame:
        return self._messages.filter(pl.col("event_timestamp").is_between(start, end, closed="left"))

    async def _all(
        self, posts: Sequence[tuple[str, dict[str, object], str | None]], connections: int = CONNECTIONS
    ) -> None:
        queue = asyncio.Queue[tuple[str, dict[str, object], str | None]]()
        for post in posts:
            queue.put_nowait(post)
        async with httpx.AsyncClient(base_url=self._url, timeout=_TIMEOUT, trust_env=False) as client:
            await asyncio.gather(*(self._drain(client, queue) for _ in range(connections)))

    async def _drain(
        self, client: httpx.AsyncClient, queue: asyncio.Queue[tuple[str, dict[str, object], str | None]]
    ) -> None:
        while not queue.empty():
            route, body, message_id = queue.get_nowait()
            await self._post(client, route, body, message_id)

    async def _post(
        self, client: httpx.AsyncClient, route: str, body: dict[str, object], message_id: str | None
    ) -> None:
        self.ledger.sent += 1
        try:
            reply = await client.post(f"/models/{self._model}/{route}", json=body)
            reply.raise_for_status()
        except httpx.HTTPError as error:
            self.ledger.failed += 1
            self.ledger.failures.append(f"{route}: {error!r}")
            return
        self.ledger.answered += 1
        if message_id is not None:
            self.ledger.prediction_of[message_id] = reply.json()["prediction_id"]


def _request(row: dict[str, object]) -> dict[str, object]:
    arrived = row["event_timestamp"]
    assert isinstance(arrived, datetime)
    body: dict[str, object] = {"text": row["text"], "event_timestamp": arrived.isoformat()}
    if row["customer_id"] is not None:
        body["customer_id"] = row["customer_id"]
    return body
