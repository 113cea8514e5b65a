"""One answer for all who ask at about the same time: made once, good for a moment, made anew after that.

It bounds what a question costs, however many ask it. What is asked is the caller's matter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Fresh(Generic[T]):
    """An answer that is at most so old; used from one event loop.

    An error is an answer too: all who wait for it get it, and it is no reason to ask more often.

    Args:
        make: makes the answer.
        seconds: how long it is good for, from when it was begun; whoever asks while it is being made waits for it.
    """

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> None:
        self._make = make
        self._seconds = seconds
        self._answer: asyncio.Task[T] | None = None
        self._begun_at = 0.0

    async def __call__(self) -> T:
        """The answer."""
        if self._answer is None or (self._answer.done() and time.monotonic() - self._begun_at >= self._seconds):
            self._begun_at = time.monotonic()
            self._answer = asyncio.create_task(self._make())
        return await asyncio.shield(self._answer)  # who gives up waiting does not take it from the others
