"""What happened on a day, or would have: the words of a replay, in which both sides are told and compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

CANNOT = "cannot be replayed"


class Kind(StrEnum):
    """What an event is about."""

    DRIFT = "drift"
    PAGE = "page"
    TICKET = "ticket"
    OVER = "over"
    ALERTS = "alerts"  # of a day on which they cannot be replayed
    DECISION = "decision"  # not to retrain, or not yet
    RETRAIN = "retrain"
    GATE = "gate"
    ROLLOUT = "rollout"
    RELEASE = "release"


@dataclass(frozen=True)
class Event:
    """One event; two are the same where kind and `what` are. `why` is for people."""

    kind: Kind
    what: str
    why: str = ""

    @property
    def is_known(self) -> bool:
        """Whether it could be replayed."""
        return self.what != CANNOT


@dataclass(frozen=True)
class Day:
    """One day: what happened beside what the policy would have done."""

    day: date
    happened: tuple[Event, ...]
    replayed: tuple[Event, ...]

    @property
    def differences(self) -> tuple[Event, ...]:
        """Events of one side that the other lacks."""
        sides = [Counter((event.kind, event.what) for event in side) for side in (self.happened, self.replayed)]
        only = (sides[0] - sides[1]) + (sides[1] - sides[0])
        found = []
        for event in (*self.happened, *self.replayed):
            if only[event.kind, event.what] > 0:
                only[event.kind, event.what] -= 1
                found.append(event)
        return tuple(found)


@dataclass(frozen=True)
class Totals:
    """Counts over all days of one side; `unknown` days have something that cannot be replayed."""

    pages: int
    tickets: int
    retrains: int
    releases: int
    aborts: int
    inconclusive: int
    unknown: int


@dataclass(frozen=True)
class Replay:
    """A policy over a stretch of the history.

    Attributes:
        changes: ``section.field`` -> (the model's own value, the policy's).
        cannot: what could not be replayed, one reason each.
        assumptions: what was taken for granted.
        unread: what lies in the model's home and could not be read.
    """

    model: str
    first: date
    last: date
    changes: dict[str, tuple[object, object]]
    days: tuple[Day, ...]
    cannot: tuple[str, ...]
    assumptions: tuple[str, ...]
    unread: tuple[str, ...]


def totals(sides: Sequence[Sequence[Event]]) -> Totals:
    """Count one side's events, day by day.

    >>> totals([[Event(Kind.PAGE, "quality")], [Event(Kind.ROLLOUT, "version 3 aborted")]]).aborts
    1
    """
    events = [event for side in sides for event in side if event.is_known]
    kinds = Counter(event.kind for event in events)
    ends = Counter(event.what.rpartition(" ")[2] for event in events if event.kind is Kind.ROLLOUT)
    return Totals(
        pages=kinds[Kind.PAGE],
        tickets=kinds[Kind.TICKET],
        retrains=kinds[Kind.RETRAIN],
        releases=kinds[Kind.RELEASE],
        aborts=ends["aborted"],
        inconclusive=ends["inconclusive"],
        unknown=sum(any(not event.is_known for event in side) for side in sides),
    )
