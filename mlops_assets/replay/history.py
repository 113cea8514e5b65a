"""What is on record of one model: plain frozen values that somebody else read, and that a replay judges again.

Two clocks run in it. Event time is what the loop decided by; wall time orders what happened, as under a replayed
clock a whole release may take no event time at all.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from typing import Any

import polars as pl

from mlops_assets.monitoring.retrain_policy import LedgerEntry, Signals
from mlops_assets.release.gate_inputs import GateInputs
from mlops_assets.release.state import RolloutState
from mlops_assets.spec import GateSpec, ModelSpec
from mlops_assets.verdict import Verdict


@dataclass(frozen=True)
class Found:
    """What one monitor said at a look; `pages`: it might wake somebody."""

    verdict: Verdict
    score: float | None
    pages: bool


@dataclass(frozen=True)
class Look:
    """One look at the monitors: event time, wall time, and what was found by check (``asset:monitor``)."""

    at: datetime
    wall: datetime
    found: Mapping[str, Found]


@dataclass(frozen=True)
class Decided:
    """One decision on retraining with all that it rested on; `ledger` as it stood before."""

    id: str
    at: datetime
    wall: datetime
    action: str
    cause: str | None
    key: str | None
    reason: str
    labels: int
    signals: Signals
    ledger: tuple[LedgerEntry, ...]


@dataclass(frozen=True)
class Gated:
    """One gate decision. `retrain`: id of the decision that its candidate was trained for; empty: a person's."""

    digest: str
    at: datetime
    wall: datetime
    retrain: str
    spec: GateSpec
    inputs: GateInputs
    verdict: Verdict
    released: bool
    summary: str


@dataclass(frozen=True)
class Released:
    """One registered version.

    Attributes:
        digest: of its artefact, by which its gate decision is found.
        retrain: id of the decision that it was trained for; empty: a person's.
        trained_until: later messages are new to it.
        registered: wall time.
        production_since: event time; None where it never got there.
        rollout: None for a first version, which has no canary.
    """

    version: int
    digest: str
    retrain: str
    trained_until: datetime
    registered: datetime
    production_since: datetime | None
    rollout: RolloutState | None


@dataclass(frozen=True)
class History:
    """Everything on record.

    Attributes:
        own: the model's own spec.
        drift, quality: the documents of each day.
        answers: as labelled, one row an answer; see `monitoring.predictions.join_labels`.
        labels: `event_timestamp` and `label_timestamp` of every labelled message, validated or answered.
        requests: the whole log, as `monitoring.predictions.read_requests` gives it.
        feedback: labels as they were received.
        exchange_seconds: how often counts reach the guard.
        time_scale: how much shorter than declared the times of a canary ran.
        unread: what lies there and cannot be read, one sentence each.
    """

    own: ModelSpec
    drift: Mapping[date, Mapping[str, Any]]
    quality: Mapping[date, Mapping[str, Any]]
    answers: pl.DataFrame
    labels: pl.DataFrame
    requests: pl.DataFrame
    feedback: pl.DataFrame
    looks: tuple[Look, ...]
    decisions: tuple[Decided, ...]
    gates: tuple[Gated, ...]
    versions: tuple[Released, ...]
    exchange_seconds: float
    time_scale: float = 1.0
    unread: tuple[str, ...] = field(default=())

    @property
    def days(self) -> tuple[date, date] | None:
        """First and last day with a drift document; None without any."""
        return (min(self.drift), max(self.drift)) if self.drift else None

    def decision(self, identity: str) -> Decided | None:
        """The decision with this id."""
        return self._by_id.get(identity)

    def event_time(self, wall: datetime) -> datetime:
        """What the loop's clock showed at a wall time, going by the latest moment before of which both are known."""
        place = bisect_right(self._clock, wall, key=lambda pair: pair[0])
        if not place:
            return wall
        then, at = self._clock[place - 1]
        return at + (wall - then)

    @cached_property
    def _by_id(self) -> dict[str, Decided]:
        return {decision.id: decision for decision in self.decisions}

    @cached_property
    def _clock(self) -> list[tuple[datetime, datetime]]:
        moments: list[Look | Decided | Gated] = [*self.looks, *self.decisions, *self.gates]
        return sorted((moment.wall, moment.at) for moment in moments)
