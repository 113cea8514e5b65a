"""Asking the canary from an ingress replica: with a deadline, and not again while its process is away.

It knows how a call can go wrong and names each way; whether it counts, and who answers instead, is the
caller's matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from mlops_assets.serving.routing import Absent, Answer, CanaryRoute, Refusal, VersionRef
from mlops_assets.serving.tracing import traceparent

# A canary that has not answered by then has failed this request.
CANARY_SECONDS = 1.0

# Model, version, text, features, and the `traceparent` of the request, if it has one.
AskCanary = Callable[[str, VersionRef, str, dict[str, float | None], str | None], Awaitable[Answer | Refusal | Absent]]


class CanaryCall:
    """The way to one model's canary."""

    def __init__(self, model: str, ask: AskCanary) -> None:
        self._model = model
        self._ask = ask
        self._mute_until_beat = -1

    async def __call__(
        self, route: CanaryRoute, text: str, features: dict[str, float | None]
    ) -> Answer | Refusal | Absent:
        """What the canary says to one message; never raises, and takes `CANARY_SECONDS` at most.

        After a silence it is left alone until the guard has seen its process with its version again, so that one
        dead process costs a handful of requests a detour, and not every request of its arm.
        """
        if route.beat <= self._mute_until_beat:
            return Absent("not asked: its process has not come back yet")
        try:
            asked = self._ask(self._model, route.ref, text, features, traceparent())
            said = await asyncio.wait_for(asked, CANARY_SECONDS)
        except TimeoutError:
            self._mute_until_beat = route.beat
            return Refusal(f"no answer within {CANARY_SECONDS:g} s")
        except Exception as error:  # noqa: BLE001 - its process died, or worse: the stable arm answers
            said = Absent(f"its process failed: {type(error).__name__}")
        if isinstance(said, Absent):
            self._mute_until_beat = route.beat
        return said
