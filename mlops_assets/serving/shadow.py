"""The shadow step: a copy of a request to the canary once its caller has the reply, compared and thrown away.

It costs no caller anything: copies are sent after the reply, and beyond a bound they are dropped and
counted. It decides nothing; failures, slow and wrong answers go into the tally, where the guards see them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from mlops_assets.serving.canary_call import CanaryCall
from mlops_assets.serving.metrics import Meter
from mlops_assets.serving.routing import Absent, Answer, CanaryRoute, Refusal
from mlops_assets.serving.tally import RolloutTally

# More copies than this on their way mean that the canary cannot keep up; further ones would only queue up.
MAX_IN_FLIGHT = 32


@dataclass(frozen=True)
class Copy:
    """A request that was answered by the stable version, and what it said."""

    route: CanaryRoute
    prediction_id: str
    entity: str
    text: str
    features: dict[str, float | None]
    stable_label: str


class Shadow:
    """Copies of one model's requests in one ingress replica.

    Args:
        keep: writes the record of an answered copy to the log; whoever cannot write it counts that.
    """

    def __init__(
        self, call: CanaryCall, tally: RolloutTally, meter: Meter, keep: Callable[[dict[str, Any]], object]
    ) -> None:
        self._call = call
        self._tally = tally
        self._meter = meter
        self._keep = keep
        self._on_their_way: set[asyncio.Task[None]] = set()

    def send(self, copy: Copy) -> None:
        """Let the canary answer a copy, in the background; returns at once."""
        if len(self._on_their_way) >= MAX_IN_FLIGHT:
            self._tally.dropped(copy.route, copy.entity)
            self._meter.copied(copy.route.ref.version, "dropped")
            return
        task = asyncio.create_task(self._compare(copy))
        self._on_their_way.add(task)
        task.add_done_callback(self._on_their_way.discard)

    async def settled(self) -> None:
        """Wait for the copies that are on their way."""
        await asyncio.gather(*self._on_their_way)

    async def _compare(self, copy: Copy) -> None:
        said = await self._call(copy.route, copy.text, copy.features)
        if not isinstance(said, Absent):
            self._keep(_record(copy) | self._count(copy, said))

    def _count(self, copy: Copy, said: Answer | Refusal) -> dict[str, Any]:
        if not isinstance(said, Answer):
            self._tally.failed(copy.route, "canary", copy.entity)
            self._meter.copied(copy.route.ref.version, "failed")
            return {"status": "failed", "error": said.reason}
        label = said.labels[int(np.argmax(said.probabilities))]
        self._tally.answered(copy.route, "canary", copy.entity, copy.prediction_id, label, said.milliseconds)
        self._tally.compared(copy.route, agreed=int(label == copy.stable_label))
        self._meter.copied(copy.route.ref.version, "answered")
        return {
            "status": "ok",
            "label": label,
            "probabilities": said.probabilities,
            "milliseconds": round(said.milliseconds, 3),
        }


def _record(copy: Copy) -> dict[str, Any]:
    return {
        "prediction_id": copy.prediction_id,
        "rollout_id": copy.route.rollout_id,
        "version": copy.route.ref.version,
        "received_at": datetime.now(UTC),
        "stable_label": copy.stable_label,
    }
