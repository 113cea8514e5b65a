"""The monitors of serving: whether answers are fast, messages come as usual, and the machine has room.

Figures come from the hourly counts of the log and from samples of the machine; what a result is, and how a
score becomes a page, is `monitors`' and `alarm_budget`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
from scipy.special import betainc
from scipy.stats import binom, chi2

from mlops_assets.monitoring.machine import GAP, Sample, longest_spell
from mlops_assets.monitoring.monitors import MonitorResult, acts, by_chance, score
from mlops_assets.monitoring.quality import CONFIDENCE
from mlops_assets.monitoring.traffic import LEAST_ALIKE, Hour, Traffic
from mlops_assets.spec import MonitorSpec
from mlops_assets.verdict import Verdict

SLOW_SHARE = 0.01  # what a limit of the 99th percentile tolerates
_LATENCY_HOURS = 24
_NEVER_SILENT = 50  # where so many messages are usual, an hour without one was an outage


def latency(traffic: Traffic, spec: MonitorSpec, act_at: float) -> MonitorResult:
    """The 99th percentile of latency, over the last hours until 300 answers are in, 24 hours at most.

    That p99 exceeds a limit is that more than 1 % of the answers take longer. Null: at most 1 % do. The p-value
    is the exact binomial tail. It passes only when the 95 % upper bound of the share lies at or below 1 %, which
    takes 299 answers; in between it says `insufficient_data`. The plain rule compares the percentile of the window.
    """
    hours: list[Hour] = []
    for hour in traffic.last(_LATENCY_HOURS):
        hours.append(hour)
        if sum(each.requests for each in hours) >= 300:
            break
    n, slow = sum(hour.requests for hour in hours), sum(hour.slow for hour in hours)
    rule = f"p99 > {spec.max_p99_ms:g} ms"
    if n == 0:
        return MonitorResult("latency", Verdict.INSUFFICIENT_DATA, None, SLOW_SHARE, 0, "no answers", rule, None)
    found = score(float(binom.sf(slow - 1, n, SLOW_SHARE)))
    verdict = acts(found, act_at)
    if verdict is Verdict.PASS and binom.cdf(slow, n, SLOW_SHARE) > 1 - CONFIDENCE:
        verdict = Verdict.INSUFFICIENT_DATA
    message = f"{slow} of {n} answers took longer than {spec.max_p99_ms:g} ms, 1 % may; {by_chance(found)}"
    return MonitorResult("latency", verdict, slow / n, SLOW_SHARE, n, message, rule, slow / n > SLOW_SHARE, score=found)


def throughput(traffic: Traffic, spec: MonitorSpec, act_at: float) -> MonitorResult:
    """Messages of the last hour beside earlier hours alike: the same of the week, else of the day.

    Null: messages come at `min_throughput` of their usual rate or more. Given the sum of both sides the hour's
    count is binomial (Przyborowski and Wilenski, 1940); where the hours alike scatter more than Poisson counts
    do, all counts are divided by the 80 % upper bound of their dispersion (quasi-likelihood). A silent hour among
    busy ones was an outage and is none of the usual: it would make the next outage no surprise. Without three hours
    alike, or where not even silence would be a surprise, it says `insufficient_data`. The plain rule compares the
    count itself.
    """
    limit, rule = spec.min_throughput, f"requests < {spec.min_throughput:.0%} of their usual number"
    start = traffic.last(1)
    alike = traffic.usual(start[0].start) if start else []
    if not alike:
        message = "fewer than three earlier hours to compare with"
        return MonitorResult("throughput", Verdict.INSUFFICIENT_DATA, None, limit, 0, message, rule, None)
    hour, counts = start[0], _without_outages(np.array([hour.requests for hour in alike], float))
    usual = float(counts.mean())
    found, silence = (score(_rate_p(count, counts, limit)) for count in (hour.requests, 0))
    share = hour.requests / usual if usual else 1.0
    message = f"{hour.requests} messages from {hour.start:%Y-%m-%d %H:%M}, usual are {usual:.1f}; {by_chance(found)}"
    verdict = Verdict.INSUFFICIENT_DATA if silence < act_at else acts(found, act_at)
    plain = share < limit
    return MonitorResult("throughput", verdict, share, limit, hour.requests, message, rule, plain, score=found)


def processor(samples: Sequence[Sample], now: datetime, slow: Verdict, spec: MonitorSpec) -> MonitorResult:
    """A busy processor, of which the answers show it.

    It fails when CPU or GPU was above `max_busy` for `busy_minutes` within the last hour (the plain rule) *and*
    `slow`, the verdict on latency, is a fail: a machine that works hard and answers in time is well used. Where
    the newest sample is stale it cannot say.
    """
    rule = f"CPU or GPU > {spec.max_busy:.0%} for {spec.busy_minutes:g} minutes"
    if not samples or now - samples[-1].at > 2 * GAP:
        last = f"the last is of {samples[-1].at:%Y-%m-%d %H:%M}" if samples else "there is none"
        message = f"no fresh sample of the machine: {last}"
        return MonitorResult("processor", Verdict.INSUFFICIENT_DATA, None, spec.max_busy, 0, message, rule, None)
    spell = longest_spell([each for each in samples if now - each.at <= timedelta(hours=1)], spec.max_busy)
    busy = spell >= timedelta(minutes=spec.busy_minutes)
    verdict = Verdict.FAIL if busy and slow is Verdict.FAIL else Verdict.PASS
    effect = "answers are slow" if slow is Verdict.FAIL else "no slowness of the answers is shown"
    message = f"at most {spell.total_seconds() / 60:.1f} minutes above {spec.max_busy:.0%} without a break; {effect}"
    value = float(np.mean([each.busiest for each in samples]))
    return MonitorResult("processor", verdict, value, spec.max_busy, len(samples), message, rule, busy)


def _without_outages(usual: np.ndarray) -> np.ndarray:
    busy = usual[usual > 0]
    return busy if len(busy) >= LEAST_ALIKE and np.median(busy) >= _NEVER_SILENT else usual


def _rate_p(count: float, usual: np.ndarray, share: float) -> float:
    """P(at most `count`) when messages come at `share` of the rate of the hours `usual` (m,)."""
    if not usual.any():
        return 1.0
    degrees = len(usual) - 1
    dispersion = max(1.0, float(usual.var(ddof=1) / usual.mean() * degrees / chi2.ppf(0.2, degrees)))
    now, before = count / dispersion, usual.sum() / dispersion
    chance = share / (share + len(usual))
    return float(betainc(before, now + 1, 1 - chance))
