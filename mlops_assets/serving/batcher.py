"""Micro-batches: requests that wait at the same moment go through the network together.

One thread takes all that is pending and runs it in chunks, first come, first served. Who asks alone never waits for
others. Callers that were answered together tend to ask again together, one a little after the other: the first would
have a run of its own, and all others wait for it, so a run waits a moment for as many as there were just now. What
would have to wait too long, by the time that texts took so far, is refused at once, and what did wait too long is not
computed. It knows a predictor's `predict` and nothing of requests.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mlops_assets.resources.predictors import Answers, Floats

CHUNK = 8
PATIENCE_SECONDS = 1.0
# A run waits for as many texts as were under way just now, at most for this share of what they will take.
GATHER = 0.2
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
    future: asyncio.Future[Floats]
    expires: float


# What became of a text: its probabilities, or why there are none.
_Outcome = tuple[_Item, Floats | Exception]


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
        self._expected = 1  # texts that were under way when the last run ended, one chunk at most
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

    def submit(self, text: str, features: Floats) -> asyncio.Future[Floats]:
        """Queue one text with its feature vector (f,); the running loop's future holds its probabilities (classes,).

        Raises:
            Overloaded: too much is waiting, or the batcher is closed. The future raises it, too, when the text
                waited longer than was foreseen.
        """
        future = asyncio.get_running_loop().create_future()
        item = _Item(text, features, future, time.monotonic() + self._patience)
        with self._wake:
            if self._closed or self.full:
                raise Overloaded(f"{self.waiting} requests are waiting already")
            self._pending.append(item)
            if len(self._pending) == 1 or self._gathered():
                self._wake.notify()
        return future

    def close(self) -> None:
        """Answer what is pending, then end the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while taken := self._take():
            for start in range(0, len(taken), self._chunk):
                self._answer(taken[start : start + self._chunk])
                self._taken = max(0, len(taken) - start - self._chunk)
            self._expected = min(self._chunk, len(taken) + len(self._pending))

    def _take(self) -> list[_Item]:
        """All that is pending, once there is something; nothing when the batcher is closed."""
        with self._wake:
            self._wake.wait_for(lambda: self._pending or self._closed)
            self._wake.wait_for(self._gathered, GATHER * self._seconds_per_text * self._expected)
            taken, self._pending = self._pending, []
            self._taken = len(taken)
        return taken

    def _gathered(self) -> bool:
        return self._closed or len(self._pending) >= self._expected

    def _answer(self, items: list[_Item]) -> None:
        begun = time.monotonic()
        waited_for = [item for item in items if not item.future.cancelled()]
        in_time = [item for item in waited_for if begun <= item.expires]
        late = Overloaded(f"it waited longer than {self._patience:g} s for its turn")
        outcomes: list[_Outcome] = [(item, late) for item in waited_for if begun > item.expires]
        if in_time:
            outcomes += self._outcomes(in_time)
        _deliver(outcomes)

    def _outcomes(self, items: list[_Item]) -> list[_Outcome]:
        try:
            return list(zip(items, self._predict(items), strict=True))
        except Exception as error:  # noqa: BLE001 - whatever the network raises is the answer of its request
            if len(items) == 1:
                return [(items[0], error)]
        # One text that cannot be predicted must not fail its neighbours.
        return [outcome for item in items for outcome in self._outcomes([item])]

    def _learn(self, seconds_per_text: float) -> None:
        known = self._seconds_per_text or seconds_per_text
        self._seconds_per_text = known + _SMOOTHING * (seconds_per_text - known)

    def _predict(self, items: list[_Item]) -> Floats:
        self.batches, self.batched = self.batches + 1, self.batched + len(items)
        begun = time.monotonic()
        features = np.stack([item.features for item in items]).astype(np.float32)
        probabilities = self._predictor.predict([item.text for item in items], features).probabilities
        self._learn((time.monotonic() - begun) / len(items))
        return probabilities


def _deliver(outcomes: Iterable[_Outcome]) -> None:
    """Settle the futures in their loops, each of which is woken once and not for every text."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = defaultdict(list)
    for item, outcome in outcomes:
        by_loop[item.future.get_loop()].append((item, outcome))
    for loop, own in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, own)


def _settle(outcomes: Iterable[_Outcome]) -> None:
    for item, outcome in outcomes:
        if item.future.done():
            continue  # its caller has gone
        if isinstance(outcome, Exception):
            item.future.set_exception(outcome)
        else:
            item.future.set_result(outcome)
