"""Customers and what they buy: a year of purchases and returns, from which customer features are computed.

Customers join all through the year and leave again, so the mean tenure of active ones is steady and ordinary days do
not drift by the calendar alone. What customers write is left to `messages`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]

SECONDS_PER_DAY = 86_400
MEAN_STAY_DAYS = 150.0
FIRST_WEEKS_DAYS = 30.0
COUNTRIES = {"United Kingdom": 0.55, "Ireland": 0.12, "Germany": 0.11, "France": 0.09, "Norway": 0.07, "Portugal": 0.06}
_BUSY_HOUR, _HOUR_SPREAD = 13.5, 3.7


@dataclass(frozen=True)
class Customers:
    """One entry per customer; times in seconds since the first purchase day's start.

    Attributes
    ----------
    per_day
        Purchases a day while active.
    line_value
        Mean value of one order line, in euros.
    returning
        Probability that a purchase is partly sent back.
    """

    ids: list[str]
    joined: Floats
    left: Floats
    per_day: Floats
    line_value: Floats
    returning: Floats
    country: list[str]

    def __len__(self) -> int:
        return len(self.ids)


def make_customers(count: int, days: int, rng: np.random.Generator) -> Customers:
    """Draw `count` customers who join within `days` days; those who were there before show up in the first weeks."""
    since = rng.uniform(-MEAN_STAY_DAYS, days, count)
    joined = np.where(since < 0, rng.uniform(0, FIRST_WEEKS_DAYS, count), since)
    stay = rng.exponential(MEAN_STAY_DAYS, count)
    return Customers(
        ids=[f"c{10_000 + number}" for number in range(count)],
        joined=joined * SECONDS_PER_DAY,
        left=np.minimum(joined + stay, days) * SECONDS_PER_DAY,
        per_day=rng.gamma(1.5, 1 / 25, count),
        line_value=rng.lognormal(2.7, 0.5, count),
        returning=rng.beta(0.8, 7.0, count),
        country=rng.choice(list(COUNTRIES), count, p=list(COUNTRIES.values())).tolist(),
    )


def purchases(customers: Customers, start: datetime, rng: np.random.Generator) -> pl.DataFrame:
    """The customers' purchases, ordered by time; each customer has one at the time of joining.

    Returns
    -------
    polars.DataFrame
        customer_id, event_timestamp (UTC), lines, qty, amount (euros), return_lines, return_amount (euros), country.
    """
    span = customers.left - customers.joined
    further = rng.poisson(customers.per_day * span / SECONDS_PER_DAY)
    who = np.concatenate([np.arange(len(customers)), np.repeat(np.arange(len(customers)), further)])
    at = customers.joined[who] + span[who] * np.concatenate([np.zeros(len(customers)), rng.random(further.sum())])
    lines = 1 + rng.poisson(3.0, len(who))
    amount = np.round(lines * customers.line_value[who] * rng.lognormal(0, 0.35, len(who)), 2)
    sent_back = np.where(rng.random(len(who)) < customers.returning[who], rng.integers(1, lines + 1), 0)
    frame = pl.DataFrame(
        {
            "customer_id": [customers.ids[i] for i in who],
            "event_timestamp": timestamps(start, at),
            "lines": lines.astype(np.int64),
            "qty": (lines + rng.poisson(2.0, len(who))).astype(np.int32),
            "amount": amount,
            "return_lines": sent_back.astype(np.int64),
            "return_amount": np.round(amount * sent_back / lines, 2),
            "country": [customers.country[i] for i in who],
        }
    )
    return frame.sort("event_timestamp", "customer_id")


def writers(customers: Customers, day_seconds: float, lean: Floats, count: int, rng: np.random.Generator) -> list[str]:
    """Ids of `count` customers who are active on a day, drawn in proportion to their purchases times `lean`.

    Those who joined before that day's start only: a message never precedes its customer's first purchase.
    """
    active = (customers.joined <= day_seconds) & (customers.left > day_seconds)
    weight = np.where(active, customers.per_day * lean, 0.0)
    if not weight.any():  # nobody left in a very small world
        weight = (customers.joined <= day_seconds).astype(np.float64)
    return [customers.ids[i] for i in rng.choice(len(customers), count, p=weight / weight.sum())]


def seconds_of_day(count: int, rng: np.random.Generator) -> Floats:
    """Times of day with a peak after noon, in seconds."""
    hours = rng.normal(_BUSY_HOUR, _HOUR_SPREAD, count) % 24
    return np.floor(hours * 3600)


def timestamps(start: datetime, seconds: Floats) -> pl.Series:
    """`start` (UTC) plus seconds, to the second, as microsecond timestamps."""
    origin = int(start.timestamp())
    whole = (np.floor(seconds).astype(np.int64) + origin) * 1_000_000
    return pl.Series(whole).cast(pl.Datetime("us", "UTC"))
