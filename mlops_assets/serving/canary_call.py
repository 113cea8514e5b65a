"""Asking the canary from an ingress replica: with a deadline, and not again while its process is away.

It knows how a call can go wrong and names each way; whether it counts, and who answers instead, is the
caller's matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from mlops_assets.serving.routing import Absent, Answer, CanaryRoute, Refusal, VersionRef
from mlops_assets.serving.tracing import traceparent

# A pause of the machine, or on the way, is no failure of a version whose deadline is short.
LEAST_SECONDS = 1.0

# Model, version, text, features, and the `traceparent` of the request, if it has one.
AskCanary = Callable[[str, VersionRef, str, dict[str, float | None], str | None], Awaitable[Answer | Refusal | Absent]]


class CanaryCall:
    """The way to one model's canary; `deadline`: seconds that a message may wait for its turn."""

    def __init__(self, model: str, ask: AskCanary, deadline: float) -> None:
        self._model = model
        self._ask = ask
        # The canary's own queue refuses what waits longer than a deadline for its turn, and that counts as an absence:
        # it tells of load and machine. What is not answered in twice that time was in the network for longer than a
        # deadline: that is the version's doing, and its failure.
        self._seconds = max(LEAST_SECONDS, 2 * deadline)
        self._mute_until_beat = -1

    async def __call__(
        self, route: CanaryRoute, text: str, features: dict[str, float | None]
    ) -> Answer | Refusal | Absent:
        """What the canary says to one message; never raises, and takes two deadlines or `LEAST_SECONDS` at most.

        After a silence it is left alone until the guard has seen its process with its version again, so that one
        dead process costs a handful of requests a detour, and not every request of its arm.
        """
        if route.beat <= self._mute_until_beat:
            return Absent("not asked: its process has not come back yet")
        try:
            asked = self._ask(self._model, route.ref, text, features, traceparent())
            said = await asyncio.wait_for(asked, self._seconds)
        except TimeoutError:
            self._mute_until_beat = route.beat
            return Refusal(f"no answer within {self._seconds:g} s")
        except Exception as error:  # noqa: BLE001 - its process died, or worse: the stable arm answers
            said = Absent(f"its process failed: {type(error).__name__}")
        if isinstance(said, Absent):
            self._mute_until_beat = route.beat
        return said
