"""Customers recur by design; only what their training labels say of their test labels is a leak."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from mlops_assets.data.entity_leak import entity_leak
from mlops_assets.leaks import EntityLeak
from mlops_assets.release.leakage import ALPHA
from tests.data.factories import START

LABELS = np.array(["complaint", "query", "refund", "status"])


def rows(n: int = 2_000, customers: int = 300, habit: float = 0.0, drift: float = 0.0, seed: int = 0) -> pl.DataFrame:
    """Messages over eight weeks, a fifth of them held out.

    `habit`: share of messages in which a customer repeats their one topic. `drift`: how much the topic of the whole
    shop moves with the weeks, and customers come and go with them.
    """
    rng = np.random.default_rng(seed)
    week = rng.integers(0, 8, n)
    mix = np.array([[1, 2, 3, 4], [4, 3, 2, 1]]) / 10
    share = drift * week[:, None] / 7
    weights = (1 - share) * mix[0] + share * mix[1]
    label = (rng.random(n)[:, None] > weights.cumsum(axis=1)).sum(axis=1)
    customer = rng.integers(0, customers, n) + (week * customers if drift else 0)
    topic = rng.integers(0, 4, customer.max() + 1)
    label = np.where(rng.random(n) < habit, topic[customer], label)
    return pl.DataFrame(
        {
            "customer_id": [f"c{number}" for number in customer],
            "label": LABELS[label],
            "event_timestamp": [START + timedelta(weeks=int(w), days=float(rng.random() * 7)) for w in week],
            "part": np.where(rng.random(n) < 0.2, "test", "train"),
        }
    )


def found(frame: pl.DataFrame, seed: int = 0) -> EntityLeak:
    return entity_leak(frame, confidence=0.95, seed=seed)


def test_customers_that_recur_without_a_habit_give_nothing_away() -> None:
    leak = found(rows())
    assert leak.recurring_rows > 0.9 * leak.test_rows
    assert abs(leak.share) < 0.03
    assert leak.p_value > ALPHA


def test_customers_who_always_ask_the_same_give_every_recurring_row_away() -> None:
    leak = found(rows(habit=1.0))
    assert leak.share == pytest.approx(leak.recurring_rows / leak.test_rows, abs=0.01)
    assert leak.p_value == 0.001


def test_the_figure_is_the_share_of_the_test_set() -> None:
    """A customer who repeats their topic half of the time has it in common with themselves in a quarter of pairs."""
    leak = found(rows(n=8_000, habit=0.5))
    assert leak.share == pytest.approx(0.25, abs=0.04)


def test_a_shop_whose_topics_move_is_no_habit_of_its_customers() -> None:
    leak = found(rows(n=4_000, drift=1.0, customers=80))
    assert leak.p_value > ALPHA
    assert abs(leak.share) < 0.03


def test_few_recurring_customers_cannot_give_more_away_than_they_are() -> None:
    frame = rows(n=1_000, customers=20_000, habit=1.0)
    leak = found(frame)
    assert 0 < leak.recurring_rows < 20
    assert leak.share <= leak.share_high <= leak.recurring_rows / leak.test_rows < 0.1


@pytest.mark.parametrize("part", ["train", "test"])
def test_without_overlap_nothing_can_be_given_away(part: str) -> None:
    leak = found(rows(n=100).with_columns(part=pl.lit(part)))
    assert (leak.recurring_rows, leak.share, leak.share_high, leak.p_value) == (0, 0.0, 0.0, 1.0)


def test_a_row_without_a_customer_recurs_nowhere() -> None:
    frame = rows(n=100, habit=1.0).with_columns(customer_id=pl.lit(None, pl.String))
    assert found(frame).recurring_rows == 0


def test_one_label_leaves_nothing_to_give_away() -> None:
    leak = found(rows(n=200).with_columns(label=pl.lit("query")))
    assert (leak.share, leak.p_value) == (0.0, 1.0)


def test_the_test_rejects_and_the_bound_misses_no_more_often_than_they_say() -> None:
    """H0: no habit. At 5 % so that the count says something; the bound is of the true share, 0."""
    runs = 80
    leaks = [found(rows(n=500, customers=120, seed=seed), seed) for seed in range(runs)]
    assert sum(leak.p_value <= 0.05 for leak in leaks) <= binom.ppf(0.999, runs, 0.05)
    assert sum(leak.share_high < 0 for leak in leaks) <= binom.ppf(0.999, runs, 0.05)
