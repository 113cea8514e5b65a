"""The script of the embedded world: what happens when, how much of it, and how labels come about.

Three periods follow one another without a gap. `history` and `ordinary` are the same shop; in `shifted` that shop has
taken over a travel agency: new words, another label mix, and two kinds of message that used to count as `query` and
now count as `order_status` and `refund`. Every number of the simulation that somebody may want to change is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

FIRST_DAY = date(2026, 3, 1)
CUSTOMERS = 1500
PURCHASE_DAYS = 365

HOME_MIX = {
    "greeting": 0.08,
    "farewell": 0.08,
    "query": 0.20,
    "complaint": 0.16,
    "order_status": 0.19,
    "refund": 0.15,
    "other": 0.14,
}
AWAY_MIX = {
    "greeting": 0.05,
    "farewell": 0.05,
    "query": 0.11,
    "complaint": 0.16,
    "order_status": 0.27,
    "refund": 0.26,
    "other": 0.10,
}


@dataclass(frozen=True)
class Period:
    """A stretch of days in which the world stays the same.

    Attributes
    ----------
    prefix
        First letter of its message ids.
    rows_per_day
        Mean number of messages on a weekday; weekends have `weekend_share` of it.
    worlds
        Phrase book -> share of the messages that come from it.
    label_mix
        Label -> share among the messages that are not ambiguous, before label noise.
    """

    name: str
    prefix: str
    first_day: date
    days: int
    rows_per_day: float
    worlds: Mapping[str, float]
    label_mix: Mapping[str, float]

    @property
    def end(self) -> date:
        """The first day after the period."""
        return self.first_day + timedelta(days=self.days)


@dataclass(frozen=True)
class Noise:
    """What keeps a model from being perfect, and labels from being there at once.

    Attributes
    ----------
    ambiguous
        Share of messages from ambiguous topics, whose label is a coin flip.
    wrong_label
        Share of labels replaced by another one, drawn evenly.
    mean_delay_hours
        Of the exponential label delay; the longest of some thousands is about nine times that.
    unknown_customers
        Share of messages without a known customer: half have no id, half the id of somebody who never bought.
    defective
        Share of deliberately bad rows, added to the history.
    """

    ambiguous: float = 0.02
    wrong_label: float = 0.005
    mean_delay_hours: float = 20.0
    unknown_customers: float = 0.10
    defective: float = 0.005
    weekend_share: float = 0.85


NOISE = Noise()


def periods() -> tuple[Period, Period, Period]:
    """History (30 days), ordinary days (10) and shifted days (10)."""
    history = Period("history", "h", FIRST_DAY, 30, 168, {"home": 1.0}, HOME_MIX)
    ordinary = Period("ordinary", "t", history.end, 10, 175, {"home": 1.0}, HOME_MIX)
    shifted = Period("shifted", "s", ordinary.end, 10, 158, {"away": 0.92, "home": 0.08}, AWAY_MIX)
    return history, ordinary, shifted
