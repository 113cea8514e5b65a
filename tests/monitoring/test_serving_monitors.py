"""Serving: slow answers, missing traffic and a busy machine are told from chance, and from not knowing."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest
from scipy.stats import binom

from mlops_assets.monitoring.machine import Sample
from mlops_assets.monitoring.monitors import score
from mlops_assets.monitoring.serving_monitors import latency, processor, throughput
from mlops_assets.monitoring.traffic import HOUR, Traffic
from mlops_assets.spec import MonitorSpec
from mlops_assets.verdict import Verdict
from tests.monitoring.test_quality import DAY

SPEC = MonitorSpec()
PAGE = score(0.002)
P, F, N = Verdict.PASS, Verdict.FAIL, Verdict.INSUFFICIENT_DATA


def traffic(*hours: tuple[int, int]) -> Traffic:
    """Hours of (requests, slow), the latest last."""
    starts = [DAY + n * HOUR for n in range(len(hours))]
    return Traffic(dict(zip(starts, hours, strict=True)), DAY + len(hours) * HOUR)


@pytest.mark.parametrize(
    ("hours", "verdict", "plain"),
    [
        ([(1000, 2)], P, False),
        ([(1000, 12)], N, True),  # neither proven
        ([(1000, 60)], F, True),
        ([(100, 0)], N, False),
        ([(100, 0)] * 3, P, False),  # together they are enough
        ([(400, 400), (500, 0)], P, False),  # what was an hour ago does not count when the last hour can say
        ([(0, 0)], N, None),
        ([], N, None),
    ],
)
def test_latency(hours: list[tuple[int, int]], verdict: Verdict, plain: bool | None) -> None:
    result = latency(traffic(*hours), SPEC, PAGE)
    assert (result.verdict, result.plain) == (verdict, plain)


@pytest.mark.slow
def test_latency_at_the_limit_alarms_at_most_as_often_as_stated() -> None:
    slow = np.random.default_rng(1).binomial(500, 0.01, size=2000)
    alarms = sum(latency(traffic((500, int(count))), SPEC, score(0.01)).verdict is F for count in slow)
    assert alarms <= binom.ppf(0.999, 2000, 0.01)


def days_of(requests: np.ndarray) -> Traffic:
    """(days, 24) requests, up to the end of the last hour."""
    return traffic(*((int(count), 0) for count in requests.ravel()))


def test_an_hour_is_compared_with_hours_alike() -> None:
    busy_noon = np.full((10, 24), 40)
    busy_noon[:, -1] = 400
    busy_noon[-1, -1] = 40  # as many as at any other hour
    result = throughput(days_of(busy_noon), SPEC, PAGE)
    assert (result.verdict, result.plain) == (F, True)
    assert "usual are 400.0" in result.message
    assert throughput(days_of(np.full((10, 24), 40)), SPEC, PAGE).verdict is P


def test_a_weekend_is_compared_with_weekends_when_there_are_some() -> None:
    weeks = np.full((5, 7, 24), 200)
    weeks[:, 6] = 20
    assert throughput(days_of(weeks.reshape(-1, 24)), SPEC, PAGE).verdict is P


def test_silence_is_a_fail_where_there_is_usually_traffic() -> None:
    silent = np.full((5, 24), 60)
    silent[-1, -1] = 0
    assert throughput(days_of(silent), SPEC, PAGE).verdict is F


def test_an_outage_does_not_make_the_next_one_usual() -> None:
    silent = np.full((36, 24), 600)
    silent[7], silent[-1, -1] = 0, 0
    assert throughput(days_of(silent), SPEC, PAGE).verdict is F


@pytest.mark.parametrize(
    "requests",
    [np.full((1, 24), 500), np.full((3, 24), 500), np.full((8, 24), 2), np.zeros((8, 24))],
    ids=["a first day", "two days before", "hardly any traffic", "none at all"],
)
def test_where_nothing_can_be_said_of_the_throughput_it_says_so(requests: np.ndarray) -> None:
    assert throughput(days_of(requests), SPEC, PAGE).verdict is N


@pytest.mark.slow
@pytest.mark.parametrize("scatter", [1, 8], ids=["poisson", "bursty"])
def test_half_of_the_usual_alarms_at_most_as_often_as_stated(scatter: int) -> None:
    """Exactly at the limit, 600 seeded histories of 8 weeks; bursty counts come in lumps of eight."""
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(600):
        weeks = scatter * rng.poisson(80 / scatter, size=9)
        weeks[-1] = scatter * rng.poisson(40 / scatter)
        counted = {DAY + n * timedelta(weeks=1): (int(count), 0) for n, count in enumerate(weeks)}
        alarms += throughput(Traffic(counted, DAY + 8 * timedelta(weeks=1) + HOUR), SPEC, score(0.01)).verdict is F
    assert alarms <= binom.ppf(0.999, 600, 0.01)


def samples(minutes: float, cpu: float, *, until: datetime = DAY, gpu: float | None = None) -> list[Sample]:
    """A sample every 10 s up to `until`."""
    count = round(minutes * 6)
    return [Sample(until - timedelta(seconds=10 * n), cpu, gpu) for n in reversed(range(count + 1))]


@pytest.mark.parametrize(
    ("taken", "slow", "verdict", "plain"),
    [
        (samples(20, 0.3), P, P, False),
        (samples(20, 0.97), P, P, True),  # well used
        (samples(20, 0.97), F, F, True),
        (samples(20, 0.2, gpu=0.99), F, F, True),
        (samples(4, 0.97), F, P, False),
        (samples(20, 0.97, until=DAY - timedelta(minutes=5)), F, N, None),
        ([], F, N, None),
    ],
    ids=["idle", "busy and fast", "busy and slow", "a busy GPU", "not for long", "stale", "never sampled"],
)
def test_processor(taken: list[Sample], slow: Verdict, verdict: Verdict, plain: bool | None) -> None:
    result = processor(taken, DAY, slow, SPEC)
    assert (result.verdict, result.plain) == (verdict, plain)
