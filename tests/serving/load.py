"""Customers who ask on, in the background of a test."""

from __future__ import annotations

import threading
from collections import Counter
from http import HTTPStatus

import httpx

from tests.serving.factories import MODEL
from tests.serving.world import Endpoint


class Load:
    """A constant trickle of requests from many customers, by so many threads.

    Other tests may keep the machine busy: who is therefore turned away waits as long as he is told, and asks on.

    Args:
        truth: the true label of every message, told by feedback right after each answer; None: never told.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        gap_seconds: float = 0.02,
        *,
        model: str = MODEL,
        threads: int = 1,
        truth: str | None = None,
    ) -> None:
        self.statuses: Counter[int] = Counter()
        self.versions: Counter[int] = Counter()
        self.arms: Counter[str] = Counter()
        self.broken: list[str] = []
        self.acknowledged: list[str] = []
        self._endpoint = endpoint
        self._model = model
        self._truth = truth
        self._gap = gap_seconds
        self._stopped = threading.Event()
        self._noting = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(n, threads), daemon=True) for n in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int, step: int) -> None:
        with self._endpoint.client as client:
            while not self._stopped.wait(self._gap):
                number += step
                body = {"text": "where is my parcel?", "customer_id": f"C-{number % 500}"}
                try:
                    self._note(client, client.post(f"/models/{self._model}/predict", json=body))
                except httpx.TransportError as error:
                    self.broken.append(type(error).__name__)

    def _note(self, client: httpx.Client, reply: httpx.Response) -> None:
        if reply.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            self._stopped.wait(float(reply.headers["retry-after"]))
            return
        with self._noting:
            self.statuses[reply.status_code] += 1
        if reply.status_code != 200:
            return
        document = reply.json()
        with self._noting:
            self.versions[document["model_version"]] += 1
            self.arms[document["arm"]] += 1
            self.acknowledged.append(document["prediction_id"])
        if self._truth is not None:
            label = {"prediction_id": document["prediction_id"], "label": self._truth}
            client.post(f"/models/{self._model}/feedback", json=label).raise_for_status()
