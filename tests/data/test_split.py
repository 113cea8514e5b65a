from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from mlops_assets.data.split import SplitRule, TooFewRows, first_rule, labelled_by, newest_held_out, split
from mlops_assets.spec import DataSpec
from mlops_assets.storage import to_json
from tests.data.factories import START, messages

SPEC = DataSpec(test_share=0.2, validation_share=0.1)


def parts(frame: pl.DataFrame, rule: SplitRule) -> dict[str, str]:
    return dict(split(frame, rule).select("message_id", "part").iter_rows())


def test_the_first_period_is_split_by_time() -> None:
    frame = messages(100)
    found = split(frame, first_rule(frame, SPEC))
    assert found["part"].to_list() == ["train"] * 72 + ["validation"] * 8 + ["test"] * 20
    assert found.drop("part").equals(frame)


def test_rows_of_one_moment_stay_together() -> None:
    times = [START] * 50 + [START + timedelta(days=1)] * 20 + [START + timedelta(days=2)] * 30
    frame = messages(100, event_timestamp=times)
    found = split(frame, first_rule(frame, SPEC))
    assert found.group_by("event_timestamp").agg(pl.col("part").n_unique())["part"].to_list() == [1, 1, 1]
    assert set(found["part"]) == {"train", "validation", "test"}


@pytest.mark.parametrize("frame", [messages(0), messages(1), messages(3), messages(50, event_timestamp=[START] * 50)])
def test_too_few_rows_or_moments_are_an_error(frame: pl.DataFrame) -> None:
    with pytest.raises(TooFewRows, match=f"{frame.height} labelled rows at .* distinct event times"):
        first_rule(frame, SPEC)


def test_of_later_rows_the_stated_shares_are_held_out_whatever_the_day() -> None:
    """Each count lies within the central 99.9 % of its binomial; with 12 counts, below 1.2 % to fail by chance."""
    frame = messages(4_000)
    rule = first_rule(frame.head(1_000), SPEC)
    later = split(frame, rule).slice(1_000)
    for start in range(0, 3_000, 500):
        block = later.slice(start, 500)["part"]
        for part, share in (("test", 0.2), ("validation", 0.8 * 0.1)):
            low, high = binom.interval(0.999, 500, share)
            assert low <= (block == part).sum() <= high, (start, part)


@pytest.mark.slow
@given(cut=st.integers(60, 200), order=st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_membership_never_changes_as_rows_arrive_in_any_order(cut: int, order: object) -> None:
    frame = messages(400)
    rule = first_rule(frame.head(cut), SPEC)
    shuffled = list(range(400))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    everything = parts(frame[shuffled], rule)
    assert {k: everything[k] for k in parts(frame.head(cut + 50), rule)} == parts(frame.head(cut + 50), rule)


def test_a_row_of_the_first_period_that_arrives_late_is_split_by_its_time() -> None:
    frame = messages(100)
    rule = first_rule(frame.gather_every(2), SPEC)
    assert parts(frame, rule)["m1"] == "train"
    assert parts(frame, rule)["m97"] == "test"


def test_the_hash_is_the_same_in_every_release() -> None:
    rule = SplitRule(START, START, START, 0.2, 0.1)
    found = parts(messages(40, event_timestamp=[START + timedelta(days=1)] * 40), rule)
    assert [k for k, v in found.items() if v == "test"] == ["m9", "m10", "m11", "m21", "m22", "m25", "m28"]


def test_a_rule_survives_json() -> None:
    rule = first_rule(messages(100), SPEC)
    assert SplitRule.from_dict(rule.to_dict()) == rule
    assert '"2026-03-04T' in to_json(rule.to_dict())


def test_a_label_is_not_there_before_it_was_known() -> None:
    frame = messages(3, label=["refund", None, "other"])
    as_of: datetime = frame["label_timestamp"][2]
    assert labelled_by(frame, as_of)["message_id"].to_list() == ["m0", "m2"]
    assert labelled_by(frame, as_of - timedelta(microseconds=1))["message_id"].to_list() == ["m0"]


def test_the_newest_held_out_rows_reach_back_as_far_as_it_takes_to_have_enough() -> None:
    times = [START + timedelta(days=day) for day in range(10)]
    frame = messages(10, event_timestamp=times).with_columns(part=pl.Series(["train", "test"] * 5))
    assert newest_held_out(frame, timedelta(days=4), 1)["message_id"].to_list() == ["m9", "m7", "m5"]
    assert newest_held_out(frame, timedelta(days=4), 4)["message_id"].to_list() == ["m9", "m7", "m5", "m3"]
    assert newest_held_out(frame, timedelta(days=4), 99).height == 5
    assert newest_held_out(frame.clear(), timedelta(days=4), 1).is_empty()


@pytest.mark.parametrize(
    ("min_rows", "since", "found"),
    [
        (1, 6, ["m9", "m7"]),
        (1, 0, ["m9", "m7", "m5"]),  # it does not lengthen the span
        (2, 9, ["m9", "m7"]),  # one is wanting
        (3, 9, ["m9", "m7", "m5"]),  # most would be
        (1, 20, ["m9", "m7", "m5"]),  # none is so new
    ],
)
def test_held_out_rows_from_before_a_shift_are_left_out_unless_most_would_be_wanting(
    min_rows: int, since: int, found: list[str]
) -> None:
    times = [START + timedelta(days=day) for day in range(10)]
    frame = messages(10, event_timestamp=times).with_columns(part=pl.Series(["train", "test"] * 5))
    newest = newest_held_out(frame, timedelta(days=4), min_rows, since=START + timedelta(days=since))
    assert newest["message_id"].to_list() == found
