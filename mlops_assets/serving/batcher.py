"""Micro-batches: requests that wait at the same moment go through the network together.

One thread takes all that is pending and runs it in chunks, first come, first served. Who asks alone never waits for
others. Callers that were answered together tend to ask again together, one a little after the other: the first would
have a run of its own, and all others wait for it, so a run waits a moment for as many as there were just now. What
would have to wait too long, by the time that texts took so far, is refused at once, and what did wait too long is
refused when it has, also while the network hangs. A thread that hangs cannot be ended: `check_networks` tells whoever
can end its process. It knows a predictor's `predict` and nothing of requests.
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
# A run that is overdue by so much hangs. Less than the proxy waits, so that its callers hear of it.
HUNG_SECONDS = 25.0


class Overloaded(RuntimeError):
    """A request would wait, or has waited, longer than its caller's patience; try again later."""


class NetworkFailed(RuntimeError):
    """The network hangs, or ended with something that is no ordinary exception."""


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

# Those whose thread runs. One that hangs is found here when its version is long gone.
_alive: set[MicroBatcher] = set()


def check_networks() -> None:
    """Look after all networks of this process, also those of versions that were dropped.

    Raises:
        NetworkFailed: one hangs; only a new process is rid of it.
    """
    if any(batcher.overdue > HUNG_SECONDS for batcher in tuple(_alive)):
        raise NetworkFailed("a network hangs")


class MicroBatcher:
    """Runs `predictor.predict` in a thread of its own.

    Args:
        predictor: answers texts and features with probabilities.
        chunk: texts per call.
        patience: seconds that a text may wait for its turn. One chunk may always wait, so that a wrong estimate
            is put right. A text whose turn has come is waited for until its run hangs.

    `batches` and `batched` count the runs so far and the texts in them.
    """

    def __init__(self, predictor: Predicts, chunk: int = CHUNK, patience: float = PATIENCE_SECONDS) -> None:
        self._predictor = predictor
        self._chunk = chunk
        self._patience = patience
        self._seconds_per_text = 0.0
        self._pending: list[_Item] = []
        self._taken: list[_Item] = []  # left `_pending` together, and wait for the chunks before them
        self._running: list[_Item] = []
        self._together = 0  # how many were taken when some were last taken
        self._expected = 0  # texts that were under way when the last run ended, one chunk at most
        self._due: float | None = None  # when what the network does now should have ended
        self._watching: asyncio.AbstractEventLoop | None = None
        self.batches = 0
        self.batched = 0
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="micro-batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Texts that are not answered yet."""
        return len(self._pending) + len(self._taken) + len(self._running)

    @property
    def overdue(self) -> float:
        """Seconds by which what the network does now takes longer than texts took so far, and the patience more."""
        due = self._due
        return max(0.0, time.monotonic() - due) if due is not None else 0.0

    @property
    def full(self) -> bool:
        """Whether a new text would have to wait too long, or nobody can say how long."""
        if self.overdue:
            return True
        return self.waiting >= self._chunk and self.waiting * self._seconds_per_text > self._patience

    def submit(self, text: str, features: Floats) -> asyncio.Future[Floats]:
        """Queue one text with its feature vector (f,); the running loop's future holds its probabilities (classes,).

        Raises:
            Overloaded: too much is waiting, or the batcher is closed. The future raises it, too, when the text
                waited longer than was foreseen.
            NetworkFailed: by the future alone, as whatever else the network raises.
        """
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        item = _Item(text, features, future, time.monotonic() + self._patience)
        with self._wake:
            if self._closed or self.full:
                raise Overloaded(f"{self.waiting} requests are waiting already")
            self._pending.append(item)
            if len(self._pending) == 1 or self._gathered():
                self._wake.notify()
        if self._watching is not loop:
            self._watching = loop
            loop.call_later(self._patience, self._watch, loop)
        return future

    def close(self) -> None:
        """Have what is pending answered and the thread end then, without waiting for it: its network may hang."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Refuse what is late while the network is at others; again when the next would be, until nothing is waiting.

        One timer for all texts costs a request nothing that can be measured, and one for each 6 us.
        """
        _deliver((item, self._too_late()) for item in self._expired())
        if self.overdue > HUNG_SECONDS:
            _deliver((item, NetworkFailed("the network hangs")) for item in self._running)
        if self._watching is not loop:
            return  # another loop asks now, and has a timer of its own
        if self.waiting:
            loop.call_later(self._until_next(), self._watch, loop)
        else:
            self._watching = None

    def _expired(self) -> list[_Item]:
        """Take out what has waited too long for its turn."""
        now = time.monotonic()
        with self._wake:
            expired = [item for item in self._taken + self._pending if item.expires <= now]
            self._taken = [item for item in self._taken if item.expires > now]
            self._pending = [item for item in self._pending if item.expires > now]
        return expired

    def _until_next(self) -> float:
        """Seconds until the oldest that waits for its turn is late."""
        oldest = next(iter(self._taken or self._pending), None)
        return max(0.0, oldest.expires - time.monotonic()) if oldest is not None else self._patience

    def _run(self) -> None:
        _alive.add(self)
        while chunk := self._next():
            self._answer(chunk)
        _alive.remove(self)

    def _next(self) -> list[_Item]:
        """The next chunk, once there is one; nothing when the batcher is closed."""
        with self._wake:
            self._running = []
            while not self._taken and (self._pending or not self._closed):
                self._gather()
            self._running, self._taken = self._taken[: self._chunk], self._taken[self._chunk :]
            return self._running

    def _gather(self) -> None:
        """Take all that is pending, once there is something and those who ask again had their moment."""
        self._expected = min(self._chunk, self._together + len(self._pending))
        self._wake.wait_for(lambda: self._pending or self._closed)
        self._wake.wait_for(self._gathered, GATHER * self._seconds_per_text * self._expected)
        self._taken, self._pending = self._pending, []
        self._together = len(self._taken)

    def _gathered(self) -> bool:
        return self._closed or len(self._pending) >= self._expected

    def _answer(self, items: list[_Item]) -> None:
        begun = time.monotonic()
        waited_for = [item for item in items if not item.future.cancelled()]
        in_time = [item for item in waited_for if begun <= item.expires]
        outcomes: list[_Outcome] = [(item, self._too_late()) for item in waited_for if begun > item.expires]
        if in_time:
            outcomes += self._outcomes(in_time)
        _deliver(outcomes)

    def _too_late(self) -> Overloaded:
        return Overloaded(f"it waited longer than {self._patience:g} s for its turn")

    def _outcomes(self, items: list[_Item]) -> list[_Outcome]:
        try:
            return list(zip(items, self._predict(items), strict=True))
        except BaseException as error:  # noqa: BLE001 - whatever the network raises is the answer of its request
            if len(items) == 1:
                return [(items[0], _for_a_future(error))]
        # One text that cannot be predicted must not fail its neighbours.
        return [outcome for item in items for outcome in self._outcomes([item])]

    def _learn(self, seconds_per_text: float) -> None:
        """Move the estimate towards what a run took, upwards by no more than `_SMOOTHING` of itself.

        A run during which the whole machine stood still tells nothing of the next one. By its full length it would
        shut the door for seconds after; what is slow from now on is known after some runs all the same.
        """
        known = self._seconds_per_text or seconds_per_text
        self._seconds_per_text = known + _SMOOTHING * (min(seconds_per_text, 2 * known) - known)

    def _predict(self, items: list[_Item]) -> Floats:
        self.batches, self.batched = self.batches + 1, self.batched + len(items)
        features = np.stack([item.features for item in items]).astype(np.float32)
        begun = time.monotonic()
        self._due = begun + len(items) * self._seconds_per_text + self._patience
        try:
            probabilities = self._predictor.predict([item.text for item in items], features).probabilities
        finally:
            self._due = None
        self._learn((time.monotonic() - begun) / len(items))
        return probabilities


def _for_a_future(error: BaseException) -> Exception:
    """The error as a future can raise it: some end the event loop of who awaits them, or cannot be set at all."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return NetworkFailed(f"the network raised {type(error).__name__}")


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
