"""The alarm budget: how strong the evidence must be before somebody is woken, from how often that may be in vain.

Each paging monitor gives one score a day (see `monitors.score`: -log10 of its p-value against "within what
is tolerated"). From the budget and the scores of the model's own quiet days follows a limit per monitor. It
knows nothing of what the monitors watch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUARTER_DAYS = 90
MIN_DAYS = 56  # of history: eight blocks of a week
LIMITS_VALID = timedelta(days=7)
_BLOCK = 7
_RESAMPLES = 300
_CONFIDENCE = 0.95
_AT_MOST = 3.0  # times the analytic limit: what history may make of it
_TAIL = 0.8  # the tail that is extrapolated: the highest fifth of the days

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Limit:
    """The score from which one monitor pages.

    Attributes:
        score: the larger of the other two; at most three times the analytic one.
        analytic: what the monitor's stated error rate asks for.
        from_history: what the quiet days ask for; None while there are fewer than `MIN_DAYS`.
        days: quiet days on which the monitor had something to say.
    """

    score: float
    analytic: float
    from_history: float | None
    days: int


@dataclass(frozen=True)
class Ground:
    """What limits were set on: when, for which production version, and within which budget."""

    at: datetime
    version: int | None
    pages_per_quarter: float

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Ground:
        """The ground of limits that were kept."""
        return cls(datetime.fromisoformat(document["at"]), document["version"], document["pages_per_quarter"])


@dataclass(frozen=True)
class Replay:
    """What limits would have done on a history: days on which a page began, of all monitors and of each."""

    days: int
    pages: int
    by_monitor: Mapping[str, int]


def limits_within_budget(
    history: Sequence[Mapping[str, float]], looks: Mapping[str, int], pages_per_quarter: float, *, seed: int = 0
) -> dict[str, Limit]:
    """A limit for each monitor, so that all together page in vain at most `pages_per_quarter` times in 90 days.

    The budget is split evenly over the monitors. *Analytic limit*: a score exceeds s on a quiet day with
    probability at most 10^-s per look (it is a p-value's), so the share of a day is split over its looks too
    (Bonferroni). *From history*, as p-values rest on assumptions that a model's own days may not keep: the daily
    scores above their 80th percentile, runs of days counted once, are extrapolated with an exponential tail
    (peaks over threshold: Coles, "An Introduction to Statistical Modeling of Extreme Values", 2001, chapter 4);
    blocks of a week are resampled (circular block bootstrap: Politis and Romano, 1992), which keeps the
    autocorrelation, and the 95 % upper quantile of the limits found counts. The larger of the two acts: what
    is tolerated is the user's to say, and history can only make a monitor quieter. At most to three times the analytic
    limit, and no day counts for more: an outage that drift did not see is among the quiet days too, and would
    silence the monitor that saw it.

    Error rate: at most `pages_per_quarter` episodes a quarter in expectation; simulated in the tests with
    autocorrelated scores whose p-values are wrong. Out of its reach: a memory of weeks (AR(1) above 0.9) in a
    history of only a few months, where 1.3 times the budget was simulated.

    Args:
        history: score by monitor of each quiet day, oldest first; a monitor that could not say is left out.
        looks: monitor -> how often a day it is looked at; all monitors that page.

    >>> limits = limits_within_budget([], {"f1": 1, "latency": 24}, pages_per_quarter=1.8)
    >>> round(limits["f1"].score, 3), round(limits["latency"].score, 3)
    (2.0, 3.38)
    """
    daily = pages_per_quarter / QUARTER_DAYS / len(looks)
    return {name: _limit(_column(history, name), times, daily, seed) for name, times in looks.items()}


def still_hold(before: Ground, now: Ground) -> bool:
    """Whether limits set on one ground hold on another: same version and budget, and younger than a week."""
    same = (before.version, before.pages_per_quarter) == (now.version, now.pages_per_quarter)
    return same and now.at - before.at < LIMITS_VALID


def highest(before: Mapping[str, float], found: Mapping[str, float | None]) -> dict[str, float]:
    """A day's highest score of each monitor after one more look; who could not say (None) changes nothing.

    >>> highest({"f1": 2.0, "latency": 0.5}, {"f1": 1.0, "latency": 0.7, "throughput": None})
    {'f1': 2.0, 'latency': 0.7}
    """
    scores = {name: score for name, score in found.items() if score is not None}
    return {**before, **{name: max(score, before.get(name, score)) for name, score in scores.items()}}


def replay(history: Sequence[Mapping[str, float]], limits: Mapping[str, Limit]) -> Replay:
    """How often these limits would have paged on a history; monitors that begin on one day are one page."""
    begins = {name: _begins(_column(history, name), limit.score) for name, limit in limits.items()}
    any_begins = np.logical_or.reduce(list(begins.values())) if begins and history else np.zeros(0, bool)
    return Replay(len(history), int(any_begins.sum()), {name: int(days.sum()) for name, days in begins.items()})


def _column(history: Sequence[Mapping[str, float]], name: str) -> Scores:
    """Scores (days,) of one monitor; -inf where it could not say."""
    return np.array([day.get(name, -np.inf) for day in history], dtype=float)


def _limit(scores: Scores, looks: int, daily: float, seed: int) -> Limit:
    analytic, days = math.log10(looks / daily), int(np.isfinite(scores).sum())
    if days < MIN_DAYS:
        return Limit(analytic, analytic, None, days)
    most = _AT_MOST * analytic
    from_history = min(most, _bootstrapped(np.minimum(scores, most), daily, seed))
    return Limit(max(analytic, from_history), analytic, from_history, days)


def _bootstrapped(scores: Scores, daily: float, seed: int) -> float:
    threshold = float(np.quantile(scores[np.isfinite(scores)], _TAIL))
    rng = np.random.default_rng(seed)
    blocks = -(-len(scores) // _BLOCK)
    starts = rng.integers(len(scores), size=(_RESAMPLES, blocks, 1))
    series = scores[(starts + np.arange(_BLOCK)) % len(scores)].reshape(_RESAMPLES, -1)
    return float(np.quantile([_extrapolated(one, threshold, daily) for one in series], _CONFIDENCE))


def _extrapolated(scores: Scores, threshold: float, daily: float) -> float:
    """The score above which a run of days begins with probability `daily` per day."""
    over = scores > threshold
    if not over.any():
        return threshold
    run = np.cumsum(_begins(scores, threshold))[over]
    peaks = np.full(run[-1], -np.inf)
    np.maximum.at(peaks, run - 1, scores[over])
    excess, rate = float((peaks - threshold).mean()), len(peaks) / len(scores)
    return threshold + excess * max(0.0, math.log(rate / daily))


def _begins(scores: Scores, limit: float) -> NDArray[np.bool_]:
    """Days (n,) above `limit` after one that was not."""
    over = scores > limit
    return over & ~np.concatenate([[False], over[:-1]])
