"""Tests that stay valid however often one looks, and exact bounds for a share.

An e-process is a non-negative statistic whose expectation under the null is at most 1 at every stopping
time; by Ville's inequality it ever reaches 1/alpha with probability at most alpha. Everything here is a
vectorised function of counts: it knows neither canaries nor policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
from scipy.special import betainc, betaincinv, betaln

MAX_LOG_E = 690.0
"""Log e-values are capped here, so that an e-value is always a finite float."""

# How much more often the event happens than the null allows: most of the weight log-normal around a fourfold rate,
# which is about where a regression starts to hurt, the rest even up to a thousandfold so that an outright failure
# shows at once.
_RATIOS = np.geomspace(1.2, 1000.0, 16)
_BELL = np.exp(-0.5 * ((np.log(_RATIOS) - np.log(4.0)) / 0.8) ** 2)
_LOG_WEIGHTS = np.log(0.9 * _BELL / _BELL.sum() + 0.1 / _RATIOS.size)


def log_e_share(successes: Any, trials: Any, null_share: Any) -> Any:
    """Log e-value against "each trial succeeds with probability at most `null_share`, whatever came before".

    Method: a finite mixture over odds ratios t > 1 of the likelihood ratios t^s / (1 - p + p t)^n (Robbins'
    method of mixtures; Ville 1939; Ramdas et al., "Game-theoretic statistics and safe anytime-valid inference",
    2023). Each is a test supermartingale under the composite null, also where the probability changes from trial
    to trial below its bound. It falls in `null_share`, so a larger share than the true bound only errs on the
    quiet side. H0: P(success_i | past) <= null_share for all i. Error: P(ever e >= 1/alpha) <= alpha.

    Parameters
    ----------
    successes, trials : counts, scalars or arrays of one shape.
    null_share : in (0, 1], scalar or array.

    Returns
    -------
    Natural logarithm of the e-value, at most ``MAX_LOG_E``; 0 without trials.

    Examples
    --------
    >>> round(float(log_e_share(0, 0, 0.1)), 6) == 0
    True
    >>> bool(log_e_share(5, 5, 0.1) > np.log(60)), bool(log_e_share(5, 50, 0.1) < 0)
    (True, True)
    """
    return log_e_from_each([(successes, trials, null_share)])[0]


def log_e_from_each(strata: Sequence[tuple[Any, Any, Any]]) -> list[Any]:
    """Log e-values over trials of several kinds: one from each stratum on, over it and all that follow.

    The likelihood ratios of one odds ratio are multiplied over the strata, then mixed over the odds ratios, so that
    what was learnt in one stratum counts in the next. H0: each trial succeeds with at most its own stratum's share,
    whatever came before; the strata may interleave in time. Error of each: P(ever e >= 1/alpha) <= alpha.

    Parameters
    ----------
    strata : successes, trials and null share of each, as in `log_e_share`.

    Examples
    --------
    >>> both, second = log_e_from_each([(4, 8, 0.1), (6, 8, 0.5)])
    >>> bool(both > log_e_share(4, 8, 0.1)), bool(second == log_e_share(6, 8, 0.5))
    (True, True)
    """
    from_the_last = accumulate(_log_ratios(*stratum) for stratum in reversed(strata))
    return [_mixed(log_ratios) for log_ratios in from_the_last][::-1]


def _mixed(log_ratios: Any) -> Any:
    """The mean of likelihood ratios (..., ratios) over the odds ratios, as a logarithm."""
    terms = _LOG_WEIGHTS + log_ratios
    # Written out: scipy's logsumexp takes ten times as long on a few numbers, and this is asked many times a second.
    top = terms.max(axis=-1)
    return np.minimum(top + np.log(np.exp(terms - top[..., None]).sum(axis=-1)), MAX_LOG_E)


def _log_ratios(successes: Any, trials: Any, null_share: Any) -> Any:
    """Log likelihood ratio of each odds ratio against the null, shape (..., ratios)."""
    s = np.asarray(successes, float)[..., None]
    n = np.asarray(trials, float)[..., None]
    p = np.asarray(null_share, float)[..., None]
    return s * np.log(_RATIOS) - n * np.log1p(p * (_RATIOS - 1.0))


def upper_bound(events: Any, trials: Any, confidence: float) -> Any:
    """Exact one-sided upper bound of an event's probability (Clopper and Pearson, 1934).

    Error: for a fixed number of trials the probability lies above it at most (1 - confidence) of the time.
    No trials: 1.

    >>> round(float(upper_bound(0, 299, 0.95)), 4)
    0.01
    """
    k, n = np.asarray(events, float), np.asarray(trials, float)
    with np.errstate(invalid="ignore"):
        bound = betaincinv(np.minimum(k + 1.0, n + 1.0), np.maximum(n - k, 1e-12), confidence)
    return np.where(k >= n, 1.0, bound)


def lower_bound(events: Any, trials: Any, confidence: float) -> Any:
    """Exact one-sided lower bound of an event's probability; no trials: 0.

    >>> round(float(lower_bound(299, 299, 0.95)), 3)
    0.99
    """
    return 1.0 - upper_bound(np.asarray(trials, float) - np.asarray(events, float), trials, confidence)


def passes_below(events: int, trials: int, limit: float, confidence: float) -> bool:
    """Whether the upper bound of the event's probability lies below `limit`."""
    return bool(upper_bound(events, trials, confidence) < limit)


@lru_cache(maxsize=256)  # a rollout asks at each look, mostly the same
def trials_needed(rate: float, limit: float, confidence: float, at_most: int = 10_000_000) -> int | None:
    """Least trials at which an event that keeps its observed `rate` is bounded below `limit`; None: never.

    >>> trials_needed(0.0, 0.01, 0.95)
    299
    >>> trials_needed(0.02, 0.01, 0.95) is None
    True
    """
    if rate >= limit or not passes_below(round(rate * at_most), at_most, limit, confidence):
        return None
    low, high = 0, at_most
    while high - low > 1:
        middle = (low + high) // 2
        enough = bool(betainc(rate * middle + 1.0, middle * (1.0 - rate), limit) > confidence)
        low, high = (low, middle) if enough else (middle, high)
    return high


def anytime_upper_bound(events: Any, trials: Any, alpha: float) -> Any:
    """Upper bound of a probability that holds at all sample sizes at once.

    Method: prior-posterior ratio with a uniform prior (Waudby-Smith and Ramdas, "Confidence sequences for
    sampling without replacement", 2020). Error: P(it ever lies below the true probability) <= alpha.

    >>> float(anytime_upper_bound(0, 0, 0.01)), round(float(anytime_upper_bound(5, 1000, 0.01)), 3)
    (1.0, 0.022)
    """
    k, n = np.asarray(events, float), np.asarray(trials, float)
    normaliser = betaln(k + 1.0, n - k + 1.0)
    low = np.clip(k / np.maximum(n, 1.0), 1e-12, 1.0 - 1e-12)
    high = np.full(np.broadcast(k, n).shape, 1.0 - 1e-12)
    for _ in range(25):  # halvings: to 3e-8, and never below the bound
        middle = 0.5 * (low + high)
        inside = k * np.log(middle) + (n - k) * np.log1p(-middle) - normaliser > np.log(alpha)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.where(k >= n, 1.0, high)


def log_e_sample_ratio(canary: Any, total: Any, weight: float, tolerance: float, times_counted: int = 1) -> Any:
    """Log e-value against "the canary's share of the sample is `weight`, within a factor `tolerance`".

    H0: weight / tolerance <= share <= min(1, weight * tolerance). The mean of two one-sided e-processes, so
    valid under continuous looks. Tolerance 1 suits independent units (customers); requests come in runs of one
    customer, and need room.

    Where several observers count, each the units that it meets, the sums are divided by their number R: the variance
    of a sum in which every unit is R times is R times that of as many units. Derivation: the log e-value is convex in
    the counts (a log-sum-exp of linear functions), and the sums over R are the mean of the observers' own counts, in
    which each unit is once. So by Jensen e(mean) <= mean of e(own), whose expectation is at most 1 whatever share of
    the units the observers have in common, if which they meet does not hang on the arm. That is the error of one
    look; of all looks together it is simulated in the tests. Units that only one observer meets count for less than
    they could: it errs on the quiet side.

    Parameters
    ----------
    times_counted : number of observers, each of whom may have counted a unit once.

    Examples
    --------
    >>> bool(log_e_sample_ratio(0, 2000, 0.1, 1.5) > np.log(1000))
    True
    """
    mine, whole = np.divide(canary, times_counted), np.divide(total, times_counted)
    too_many = log_e_share(mine, whole, min(1.0, weight * tolerance))
    too_few = log_e_share(whole - mine, whole, 1.0 - weight / tolerance)
    return np.minimum(np.logaddexp(too_many, too_few) - np.log(2.0), MAX_LOG_E)
