"""How many fast queries prove a latency percentile: MLPerf's early-stopping bound.

It turns measured latencies into an upper bound of a percentile, or into the number of queries that one
needs. It measures nothing itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binom


def queries_needed(over: int, percentile: float, confidence: float) -> int:
    """Least number of queries at which `over` slow ones still prove the percentile.

    Method: MLPerf Inference, "early stopping": the least n with P(Binomial(n, 1 - percentile) <= over) <=
    1 - confidence. H0: a query is slow with probability at least 1 - percentile; error at most 1 - confidence.

    Examples
    --------
    >>> queries_needed(0, 0.99, 0.95), queries_needed(1, 0.99, 0.95), queries_needed(0, 0.9, 0.99)
    (299, 473, 44)
    """
    low, high = over, max(2 * over, 16)
    while binom.cdf(over, high, 1.0 - percentile) > 1.0 - confidence:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = binom.cdf(over, middle, 1.0 - percentile) <= 1.0 - confidence
        low, high = (low, middle) if enough else (middle, high)
    return high


def slow_allowed(queries: int, percentile: float, confidence: float) -> int | None:
    """The most slow ones among `queries` that still prove the percentile; None: too few queries to prove any.

    >>> slow_allowed(299, 0.99, 0.95), slow_allowed(1000, 0.99, 0.95), slow_allowed(298, 0.99, 0.95)
    (0, 4, None)
    """
    allowed = int(binom.ppf(1.0 - confidence, queries, 1.0 - percentile)) + 1
    while allowed >= 0 and binom.cdf(allowed, queries, 1.0 - percentile) > 1.0 - confidence:
        allowed -= 1
    return allowed if allowed >= 0 else None


def is_hopeless(latencies_ms: Any, limit_ms: float, percentile: float) -> bool:
    """Whether ten times as many queries as allowed took longer than the limit: no further one is worth asking.

    >>> is_hopeless([8.0, 80.0], 50.0, 0.99), is_hopeless([8.0] * 20 + [80.0], 50.0, 0.99)
    (True, False)
    """
    return float((np.asarray(latencies_ms, float) > limit_ms).mean()) > 10 * (1 - percentile)


def is_slow(latencies_ms: Any, limit_ms: float, percentile: float, confidence: float) -> bool:
    """Whether the percentile is proved to lie above the limit, by however few queries.

    H0: at most 1 - percentile of all queries are slow; exact binomial test, error at most 1 - confidence.

    >>> is_slow([80.0, 80.0], 50.0, 0.99, 0.95), is_slow([8.0] * 20 + [80.0], 50.0, 0.99, 0.95)
    (True, False)
    """
    slow = np.asarray(latencies_ms, float) > limit_ms
    return bool(binom.sf(int(slow.sum()) - 1, slow.size, 1.0 - percentile) <= 1.0 - confidence)


def percentile_bound(latencies_ms: Any, percentile: float, confidence: float) -> float | None:
    """Upper confidence bound of a latency percentile, in ms; None: too few queries.

    The order statistic that leaves as many slower queries as the early-stopping rule allows. H0: the percentile
    lies above it; error at most 1 - confidence, whatever the distribution.

    >>> percentile_bound(np.arange(1000), 0.99, 0.95)
    995.0
    """
    ordered = np.sort(np.asarray(latencies_ms, float))
    allowed = slow_allowed(ordered.size, percentile, confidence)
    return None if allowed is None else float(ordered[ordered.size - 1 - allowed])
