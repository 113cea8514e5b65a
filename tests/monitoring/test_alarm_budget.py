"""The alarm budget: what is promised per quarter is kept, also on days that hang together and on wrong p-values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import norm, poisson

from mlops_assets.monitoring.alarm_budget import MIN_DAYS, QUARTER_DAYS, limits_within_budget, replay

LOOKS = {"f1": 1, "latency": 1, "throughput": 1}


def quiet_days(seed: int, days: int, *, memory: float, spread: float) -> list[dict[str, float]]:
    """Scores of an AR(1) process per monitor; with `spread` above 1 their p-values promise too much."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(len(LOOKS), days + 50)) * np.sqrt(1 - memory**2)
    z = spread * lfilter([1], [1, -memory], noise, axis=1)[:, 50:]
    scores = -norm.logsf(z) / np.log(10)
    return [dict(zip(LOOKS, day, strict=True)) for day in scores.T.tolist()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("memory", "spread", "budget"),
    [(0.0, 1.0, 1.0), (0.7, 1.0, 3.0), (0.6, 1.6, 1.0), (0.8, 1.3, 1.0), (0.6, 1.6, 3.0)],
)
def test_the_achieved_rate_stays_within_the_budget(memory: float, spread: float, budget: float) -> None:
    """Limits from 120 quiet days, then 20 quarters of the same process; 30 models. At most the budget, up to chance."""
    pages = 0
    for run in range(30):
        history = quiet_days(run, 120, memory=memory, spread=spread)
        limits = limits_within_budget(history, LOOKS, budget, seed=run)
        pages += replay(quiet_days(1000 + run, 20 * QUARTER_DAYS, memory=memory, spread=spread), limits).pages
    assert pages <= poisson.ppf(0.999, 30 * 20 * budget)


def test_the_analytic_limits_alone_would_break_it_where_p_values_are_wrong() -> None:
    """What the history is for: spread 1.6 pages many times over the budget without it."""
    analytic = limits_within_budget([], LOOKS, 1.0)
    days = quiet_days(1, 100 * QUARTER_DAYS, memory=0.6, spread=1.6)
    assert replay(days, analytic).pages > 5 * 100


def test_with_little_history_the_error_rates_decide_and_with_enough_it_may_only_get_quieter() -> None:
    calm = quiet_days(3, 200, memory=0.3, spread=0.5)
    few, many = (limits_within_budget(calm[:days], LOOKS, 1.0)["f1"] for days in (MIN_DAYS - 1, 200))
    assert few.from_history is None
    assert few.score == few.analytic == pytest.approx(np.log10(QUARTER_DAYS * len(LOOKS)))
    assert many.from_history is not None
    assert many.from_history < many.analytic == many.score


def test_a_smaller_budget_and_more_looks_ask_for_more_evidence() -> None:
    noisy = quiet_days(4, 120, memory=0.5, spread=1.6)
    tight, loose = (limits_within_budget(noisy, LOOKS, budget) for budget in (0.5, 4.0))
    assert all(tight[name].score > loose[name].score for name in LOOKS)
    hourly = limits_within_budget([], {"latency": 24}, 1.0)["latency"].score
    assert hourly > limits_within_budget([], {"latency": 1}, 1.0)["latency"].score


def test_days_on_which_a_monitor_could_not_say_are_no_quiet_days_of_it() -> None:
    history = [{"f1": 0.1}] * 100
    limits = limits_within_budget(history, LOOKS, 1.0)
    assert (limits["f1"].days, limits["latency"].days) == (100, 0)
    assert limits["latency"].from_history is None


def test_a_replay_counts_runs_of_days_once_and_monitors_of_one_day_together() -> None:
    limits = limits_within_budget([], LOOKS, 1.0)
    low, high = dict.fromkeys(LOOKS, 0.0), dict.fromkeys(LOOKS, 9.0)
    found = replay([low, high, high, low, {"f1": 9.0}, {}], limits)
    assert (found.days, found.pages) == (6, 2)
    assert found.by_monitor == {"f1": 2, "latency": 1, "throughput": 1}
    assert replay([], limits).pages == 0


@pytest.mark.parametrize("days", [1, 3, 14])
def test_an_outage_among_the_quiet_days_does_not_silence_the_monitor_that_saw_it(days: int) -> None:
    history = quiet_days(6, 120, memory=0.3, spread=1.0)
    for day in history[40 : 40 + days]:
        day["latency"] = 300.0
    limit = limits_within_budget(history, LOOKS, 1.0)["latency"]
    assert limit.score <= 3 * limit.analytic < 10


def test_the_same_history_gives_the_same_limits() -> None:
    history = quiet_days(5, 90, memory=0.5, spread=1.5)
    assert limits_within_budget(history, LOOKS, 1.0) == limits_within_budget(history, LOOKS, 1.0)
