"""Micro-batches: requests that wait at the same moment go through the network together.

Nobody waits for a batch to fill. One thread takes all that is pending, sorts it by length so that
padding is small, and runs it in chunks. What would have to wait too long, by the time that texts took so far,
is refused at once, and what did wait too long is not computed. It knows a predictor's `predict` and nothing of
requests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mlops_assets.resources.predictors import Answers, Floats

CHUNK = 8
PATIENCE_SECONDS = 1.0
# How much one chunk moves the estimate of what a text takes.
_SMOOTHING = 0.2


class Overloaded(RuntimeError):
    """A request would wait, or has waited, longer than its caller's patience; try again later."""


class Predicts(Protocol):
    """The part of a version's predictor that is needed here."""

    def predict(self, texts: Sequence[str], features: Floats) -> Answers: ...


@dataclass(frozen=True)
class _Item:
    text: str
    features: Floats
    future: Future[Floats]
    expires: float


class MicroBatcher:
    """Runs `predictor.predict` in a thread of its own.

    Args:
        predictor: answers texts and features with probabilities.
        chunk: texts per call.
        patience: seconds that a text may wait for its turn. One chunk may always wait, so that a wrong estimate
            is put right.

    `batches` and `batched` count the runs so far and the texts in them.
    """

    def __init__(self, predictor: Predicts, chunk: int = CHUNK, patience: float = PATIENCE_SECONDS) -> None:
        self._predictor = predictor
        self._chunk = chunk
        self._patience = patience
        self._seconds_per_text = 0.0
        self._pending: list[_Item] = []
        self._taken = 0  # texts that left `_pending` and are not answered yet
        self.batches = 0
        self.batched = 0
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="micro-batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Texts that are not answered yet."""
        return len(self._pending) + self._taken

    @property
    def full(self) -> bool:
        """Whether a new text would have to wait too long."""
        return self.waiting >= self._chunk and self.waiting * self._seconds_per_text > self._patience

    def submit(self, text: str, features: Floats) -> Future[Floats]:
        """Queue one text with its feature vector (f,); the future holds its probabilities (classes,).

        Raises:
            Overloaded: too much is waiting, or the batcher is closed. The future raises it, too, when the text
                waited longer than was foreseen.
        """
        item = _Item(text, features, Future(), time.monotonic() + self._patience)
        with self._wake:
            if self._closed or self.full:
                raise Overloaded(f"{self.waiting} requests are waiting already")
            self._pending.append(item)
            self._wake.notify()
        return item.future

    def close(self) -> None:
        """Answer what is pending, then end the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._pending or self._closed)
                taken, self._pending = self._pending, []
                self._taken = len(taken)
            if not taken:
                return
            taken.sort(key=lambda item: len(item.text))
            for start in range(0, len(taken), self._chunk):
                self._answer(taken[start : start + self._chunk])
                self._taken = max(0, len(taken) - start - self._chunk)

    def _answer(self, items: list[_Item]) -> None:
        begun = time.monotonic()
        items = [item for item in items if item.future.set_running_or_notify_cancel() and self._in_time(item, begun)]
        if not items:
            return
        try:
            rows = self._predict(items)
        except Exception as error:  # noqa: BLE001 - whatever the network raises is the answer of its request
            if len(items) == 1:
                items[0].future.set_exception(error)
                return
            self._answer_singly(items)  # one text that cannot be predicted must not fail its neighbours
            return
        self._learn((time.monotonic() - begun) / len(items))
        for item, row in zip(items, rows, strict=True):
            item.future.set_result(row)

    def _in_time(self, item: _Item, now: float) -> bool:
        if now <= item.expires:
            return True
        item.future.set_exception(Overloaded(f"it waited longer than {self._patience:g} s for its turn"))
        return False

    def _learn(self, seconds_per_text: float) -> None:
        known = self._seconds_per_text or seconds_per_text
        self._seconds_per_text = known + _SMOOTHING * (seconds_per_text - known)

    def _answer_singly(self, items: list[_Item]) -> None:
        for item in items:
            try:
                item.future.set_result(self._predict([item])[0])
            except Exception as error:  # noqa: BLE001 - as above
                item.future.set_exception(error)

    def _predict(self, items: list[_Item]) -> Floats:
        self.batches, self.batched = self.batches + 1, self.batched + len(items)
        features = np.stack([item.features for item in items]).astype(np.float32)
        return self._predictor.predict([item.text for item in items], features).probabilities
