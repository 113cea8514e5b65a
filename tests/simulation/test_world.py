"""What the embedded world promises: repeatable, well-formed, and as noisy as its scenario says."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from itertools import chain

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from scipy.stats import binomtest, chisquare

from mlops_assets.simulation.customers import SECONDS_PER_DAY
from mlops_assets.simulation.defects import DEFECTS, LONG_TEXT, UNKNOWN_LABEL
from mlops_assets.simulation.phrasebook import load_book
from mlops_assets.simulation.scenario import NOISE, PURCHASE_DAYS, Period, periods
from mlops_assets.simulation.world import World, generate, write_world

SMALL = 0.05
LABELS = frozenset(periods()[0].label_mix)
RARE = 1e-4  # a true world fails one such test once in 10,000 seeds; the seed is fixed


@cache
def full() -> World:
    return generate()


def good(world: World) -> pl.DataFrame:
    """The history without the deliberately bad rows; a duplicate is the second row of its id."""
    fresh = world.defects.filter(pl.col("defect") != "duplicate_id")["message_id"]
    kept = world.history.filter(~pl.col("message_id").is_in(fresh.implode()))
    return kept.unique("message_id", keep="first", maintain_order=True)


def by_period(world: World) -> list[tuple[Period, pl.DataFrame]]:
    return list(zip(periods(), (good(world), world.ordinary, world.shifted), strict=True))


def is_ambiguous(frame: pl.DataFrame) -> pl.Series:
    names = [f"{world}/{topic.name}" for world in ("home", "away") for topic in load_book(world).ambiguous]
    return frame["source_intent"].is_in(names)


def plausible(hits: int, rows: int, share: float) -> bool:
    return binomtest(hits, rows, share).pvalue > RARE


def with_noise(share: float) -> float:
    """The share of a label once some labels have been replaced by another one, drawn evenly."""
    return (1 - NOISE.wrong_label) * share + NOISE.wrong_label * (1 - share) / (len(LABELS) - 1)


@pytest.mark.slow
@settings(max_examples=5)
@given(st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_world(seed):
    one, two = generate(seed, SMALL), generate(seed, SMALL)
    for name in ("history", "ordinary", "shifted", "customer_events", "defects"):
        assert_frame_equal(getattr(one, name), getattr(two, name))


def test_another_seed_gives_another_world():
    assert generate(1, SMALL).history["text"].to_list() != generate(2, SMALL).history["text"].to_list()


@settings(max_examples=8)
@given(st.integers(0, 2**32), st.sampled_from([0.01, 0.03, 0.1]))
def test_messages_keep_the_data_contract(seed, scale):
    world = generate(seed, scale)
    ids = pl.concat([frame["message_id"] for _, frame in by_period(world)])
    assert ids.n_unique() == len(ids)
    for period, frame in by_period(world):
        assert set(frame["label"]) <= LABELS
        assert frame["text"].str.len_chars().is_between(1, 512).all()
        assert (frame["label_timestamp"] > frame["event_timestamp"]).all()
        assert frame["event_timestamp"].is_sorted()
        assert frame["event_timestamp"].dt.date().is_between(period.first_day, period.end, closed="left").all()


def test_the_periods_follow_one_another_without_a_gap():
    history, ordinary, shifted = periods()
    assert (history.first_day.isoformat(), history.end, ordinary.end) == (
        "2026-03-01",
        ordinary.first_day,
        shifted.first_day,
    )
    assert (history.days, ordinary.days, shifted.days) == (30, 10, 10)


def test_the_amount_of_traffic_is_as_planned():
    rows = [frame.height for _, frame in by_period(full())]
    assert 4_500 <= rows[0] <= 5_000
    assert 1_500 <= rows[1] <= 2_000
    assert 1_400 <= rows[2] <= 1_600


def test_the_label_mix_is_that_of_its_period():
    for period, frame in by_period(full()):
        clear = frame.filter(~is_ambiguous(frame))
        expected = {
            label: clear.height
            * ((1 - NOISE.wrong_label) * share + NOISE.wrong_label * (1 - share) / (len(LABELS) - 1))
            for label, share in period.label_mix.items()
        }
        counts = dict(clear["label"].value_counts().iter_rows())
        assert chisquare([counts[label] for label in expected], list(expected.values())).pvalue > RARE


def test_the_share_of_ambiguous_messages_and_their_coin_flips_are_as_stated():
    frames = [frame for _, frame in by_period(full())]
    rows = pl.concat(frames)
    unclear = rows.filter(is_ambiguous(rows))
    assert plausible(unclear.height, rows.height, NOISE.ambiguous)
    for world in ("home", "away"):
        for topic in load_book(world).ambiguous:
            filed = unclear.filter(pl.col("source_intent") == f"{world}/{topic.name}")["label"]
            for label, share in topic.labels.items():
                assert plausible((filed == label).sum(), len(filed), with_noise(share))


def test_the_share_of_wrong_labels_is_as_stated():
    rows = pl.concat([frame for _, frame in by_period(full())])
    clear = rows.filter(~is_ambiguous(rows))
    true = {
        f"{world}/{topic.name}": label
        for world in ("home", "away")
        for label, topics in load_book(world).by_label.items()
        for topic in topics
    }
    wrong = (clear["label"] != clear["source_intent"].replace_strict(true)).sum()
    assert plausible(wrong, clear.height, NOISE.wrong_label)


def test_the_concept_shift_touches_a_good_part_of_the_shifted_days_only():
    topics = chain.from_iterable(load_book("away").by_label.values())
    moved = [f"away/{topic.name}" for topic in topics if topic.formerly]
    history, ordinary, shifted = (frame["source_intent"].is_in(moved).mean() for _, frame in by_period(full()))
    assert (history, ordinary) == (0, 0)
    assert 0.15 < shifted < 0.40


def test_labels_come_back_after_hours_and_sometimes_days():
    rows = pl.concat([frame for _, frame in by_period(full())])
    hours = (rows["label_timestamp"] - rows["event_timestamp"]).dt.total_seconds() / 3600
    assert hours.mean() == pytest.approx(NOISE.mean_delay_hours, rel=0.05)
    assert 0.02 < (hours > 72).mean() < 0.04  # exp(-72/20) = 0.027


def test_most_messages_come_from_customers_who_have_bought_before():
    world = full()
    first = world.customer_events.group_by("customer_id").agg(first=pl.col("event_timestamp").min())
    rows = pl.concat([frame for _, frame in by_period(world)]).join(first, on="customer_id", how="left")
    assert plausible(rows["first"].is_null().sum(), rows.height, NOISE.unknown_customers)
    assert (rows["first"] <= rows["event_timestamp"]).all()


def test_customer_events_are_a_year_of_purchases_some_partly_sent_back():
    events = full().customer_events
    end = periods()[-1].end
    assert events["customer_id"].n_unique() == 1500
    assert (events["event_timestamp"].dt.date() >= end - timedelta(days=PURCHASE_DAYS)).all()
    assert (events["event_timestamp"].dt.date() < end).all()
    assert events["lines"].min() >= 1
    assert events["amount"].min() > 0
    assert (events["return_lines"] <= events["lines"]).all()
    assert (events["return_amount"] <= events["amount"]).all()
    assert 0.05 < (events["return_lines"] > 0).mean() < 0.20


def test_active_customers_do_not_age_from_period_to_period():
    """Otherwise tenure alone would drift on ordinary days."""
    world = full()
    first = world.customer_events.group_by("customer_id").agg(first=pl.col("event_timestamp").min())
    tenure = [
        (joined["event_timestamp"] - joined["first"]).dt.total_seconds().mean() / SECONDS_PER_DAY
        for joined in (frame.join(first, on="customer_id") for _, frame in by_period(world))
    ]
    assert max(tenure) - min(tenure) < 15


def test_few_messages_repeat_those_of_another_day():
    """Exact repeats, in lower case; near-duplicates at 0.9 are little more (a test row of them is removed)."""
    rows = pl.concat([frame for _, frame in by_period(full())])
    rows = rows.with_columns(pl.col("text").str.to_lowercase(), day=pl.col("event_timestamp").dt.date())
    assert rows["day"].n_unique() == 50
    assert rows.select(pl.col("day").n_unique().over("text") > 1).to_series().mean() < 0.10


BROKEN: dict[str, Callable[[pl.DataFrame], pl.Series]] = {
    "null_text": lambda f: f["text"].is_null(),
    "empty_text": lambda f: f["text"] == "",
    "long_text": lambda f: f["text"].str.len_chars() == LONG_TEXT,
    "unknown_label": lambda f: f["label"] == UNKNOWN_LABEL,
    "label_before_event": lambda f: f["label_timestamp"] < f["event_timestamp"],
    "duplicate_id": lambda f: f["message_id"].is_duplicated(),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_the_history_holds_bad_rows_of_every_kind_and_says_which(defect):
    world = full()
    listed = set(world.defects.filter(pl.col("defect") == defect)["message_id"])
    assert listed
    assert set(world.history.filter(BROKEN[defect](world.history))["message_id"]) == listed


def test_bad_rows_are_about_one_in_two_hundred():
    assert full().defects.height / full().history.height == pytest.approx(NOISE.defective, rel=0.1)


def test_the_files_have_the_documented_format(tmp_path):
    world = generate(3, SMALL)
    write_world(tmp_path, world)
    stamp = pl.Datetime("ns", "UTC")
    messages = {"message_id": pl.String, "customer_id": pl.String, "text": pl.String, "label": pl.String}
    messages |= {"event_timestamp": stamp, "label_timestamp": stamp, "source": pl.String, "source_intent": pl.String}
    for name in ("messages", "traffic_in_domain", "traffic_shifted"):
        assert dict(pl.read_parquet_schema(tmp_path / f"{name}.parquet")) == messages
    assert dict(pl.read_parquet_schema(tmp_path / "customer_events.parquet")) == {
        "customer_id": pl.String,
        "event_timestamp": stamp,
        "lines": pl.Int64,
        "qty": pl.Int32,
        "amount": pl.Float64,
        "return_lines": pl.Int64,
        "return_amount": pl.Float64,
        "country": pl.String,
    }
    assert pl.read_parquet(tmp_path / "messages.parquet").height == world.history.height


@pytest.mark.parametrize("scale", [0, -1.0])
def test_a_scale_that_is_not_positive_is_refused(scale):
    with pytest.raises(ValueError, match="must be over 0"):
        generate(1, scale)


@pytest.mark.slow
def test_generation_is_quick():
    started = time.process_time()
    generate(5)
    assert time.process_time() - started < 3
