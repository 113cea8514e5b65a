"""The messages of one period: when they come, from whom, what they say, their label and when it becomes known.

It follows a scenario's numbers and draws texts from the phrase books. The same seed gives the same messages.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import accumulate
from typing import Generic, TypeVar

import numpy as np
import polars as pl

from mlops_assets.simulation.customers import (
    SECONDS_PER_DAY,
    Customers,
    Floats,
    seconds_of_day,
    timestamps,
    writers,
)
from mlops_assets.simulation.grammar import Dice
from mlops_assets.simulation.phrasebook import PhraseBook, Topic, load_book
from mlops_assets.simulation.scenario import Noise, Period
from mlops_assets.simulation.style import CHANNELS, dress, plain

T = TypeVar("T")

_SHORT_TOPICS = frozenset({"greeting", "farewell"})
_BRING_BACK = frozenset({"refund", "complaint"})
_LEAST_DELAY_SECONDS = 300.0


@dataclass(frozen=True)
class Draft:
    """A message before it has a sender and a time."""

    text: str
    label: str
    channel: str
    topic: str


class Wheel(Generic[T]):
    """Draws items in proportion to their weights."""

    def __init__(self, weighted: Iterable[tuple[T, float]]) -> None:
        pairs = list(weighted)
        self.items = [item for item, _ in pairs]
        self._sums = list(accumulate(weight for _, weight in pairs))

    def draw(self, dice: Dice) -> T:
        """One item."""
        return self.items[bisect_right(self._sums, dice.uniform() * self._sums[-1], hi=len(self.items) - 1)]


class Author:
    """Writes drafts for one period: world, then topic, then phrase, then channel."""

    def __init__(self, period: Period, noise: Noise, dice: Dice) -> None:
        self._dice = dice
        self._noise = noise
        self._worlds = Wheel((load_book(world), share) for world, share in period.worlds.items())
        self._labels = Wheel(period.label_mix.items())
        self._channels = Wheel(CHANNELS.items())
        self._topics: dict[tuple[str, str], Wheel[Topic]] = {}

    def write(self) -> Draft:
        """One message with its label; the label is wrong with the stated probability."""
        dice, book = self._dice, self._worlds.draw(self._dice)
        if dice.chance(self._noise.ambiguous):
            topic = book.ambiguous[dice.below(len(book.ambiguous))]
            label = Wheel(topic.labels.items()).draw(dice)
        else:
            label = self._labels.draw(dice)
            topic = self._topic(book, label)
        channel = self._channels.draw(dice)
        core = book.grammar.expand(topic.phrases[dice.below(len(topic.phrases))], dice)
        if topic.name in _SHORT_TOPICS:
            text = plain(core, channel, dice)
        else:
            text = dress(core, channel, book.manners, book.grammar, dice)
        return Draft(text, self._as_filed(label), channel, f"{book.world}/{topic.name}")

    def _topic(self, book: PhraseBook, label: str) -> Topic:
        key = (book.world, label)
        if key not in self._topics:
            self._topics[key] = Wheel((topic, topic.weight) for topic in book.by_label[label])
        return self._topics[key].draw(self._dice)

    def _as_filed(self, label: str) -> str:
        if not self._dice.chance(self._noise.wrong_label):
            return label
        others = [other for other in self._labels.items if other != label]
        return others[self._dice.below(len(others))]


def messages_of(
    period: Period, noise: Noise, scale: float, customers: Customers, start: datetime, rng: np.random.Generator
) -> pl.DataFrame:
    """All messages of a period, ordered by event time.

    Parameters
    ----------
    scale
        Factor on the period's rows per day.
    start
        Time zero of the customers' clock.

    Returns
    -------
    polars.DataFrame
        The canonical message columns, and `source` (the channel) and `source_intent` (world/topic).
    """
    seconds = _arrivals(period, noise, scale, start, rng)
    author = Author(period, noise, Dice(rng))
    drafts = [author.write() for _ in range(len(seconds))]
    delay = _LEAST_DELAY_SECONDS + rng.exponential(noise.mean_delay_hours * 3600 - _LEAST_DELAY_SECONDS, len(seconds))
    return pl.DataFrame(
        {
            "message_id": [f"{period.prefix}{number:06d}" for number in range(len(seconds))],
            "customer_id": pl.Series(_senders(drafts, seconds, customers, noise, rng), dtype=pl.String),
            "text": [draft.text for draft in drafts],
            "label": [draft.label for draft in drafts],
            "event_timestamp": timestamps(start, seconds),
            "label_timestamp": timestamps(start, seconds + delay),
            "source": [draft.channel for draft in drafts],
            "source_intent": [draft.topic for draft in drafts],
        }
    )


def midnight(day: date) -> datetime:
    """The start of a day, UTC."""
    return datetime.combine(day, time(), UTC)


def _arrivals(period: Period, noise: Noise, scale: float, start: datetime, rng: np.random.Generator) -> Floats:
    days = []
    for number in range(period.days):
        day = period.first_day + timedelta(days=number)
        mean = period.rows_per_day * scale * (noise.weekend_share if day.weekday() >= 5 else 1.0)
        offset = (midnight(day) - start).total_seconds()
        days.append(offset + np.sort(seconds_of_day(rng.poisson(mean), rng)))
    return np.concatenate(days)


def _senders(
    drafts: Sequence[Draft], seconds: Floats, customers: Customers, noise: Noise, rng: np.random.Generator
) -> list[str | None]:
    """Who wrote each message: people who often return goods write more of the refunds and complaints."""
    senders: list[str | None] = [None] * len(drafts)
    unknown = rng.random(len(drafts)) < noise.unknown_customers
    brings_back = np.array([draft.label in _BRING_BACK for draft in drafts], dtype=bool)
    day = np.floor(seconds / SECONDS_PER_DAY) * SECONDS_PER_DAY
    leans = ((~brings_back, np.ones(len(customers))), (brings_back, 0.25 + 8 * customers.returning))
    for start_of_day in np.unique(day):
        for group, lean in leans:
            rows = np.flatnonzero((day == start_of_day) & group & ~unknown)
            for row, name in zip(rows, writers(customers, start_of_day, lean, len(rows), rng), strict=True):
                senders[row] = name
    for row in np.flatnonzero(unknown):
        senders[row] = None if rng.random() < 0.5 else f"g{rng.integers(100_000):05d}"
    return senders
