from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlops_assets.data.leakage import find_leakage, remove_leaking
from mlops_assets.data.split import first_rule, split
from mlops_assets.data.tables import read_table, to_messages
from mlops_assets.spec import DataSpec
from tests.data.factories import messages, real

FIVE_WORDS = st.lists(st.sampled_from(["we", "need", "this", "order", "now"]), max_size=8).map(" ".join)


def jaccard(a: str, b: str) -> float:
    x, y = (set(re.findall(r"\w+", text)) for text in (a, b))
    return len(x & y) / len(x | y) if x | y else 0.0


def test_case_and_white_space_do_not_hide_a_copy() -> None:
    report = find_leakage(["bye", "Where is  my order?"], ["where is my ORDER?\n"], 0.9)
    assert report.exact.tolist() == [[0, 1]]
    assert report.near.size == 0


def test_punctuation_order_and_one_more_word_do_not_hide_a_near_copy() -> None:
    train = ["please tell me where my last order is right now"]
    test = ["Where is my last order, please tell me right now!", f"{train[0]} then", "please tell me where"]
    report = find_leakage(train, test, 0.9)
    assert report.near.tolist() == [[0, 0], [1, 0]]
    assert report.near_similarity.tolist() == pytest.approx([1.0, 10 / 11])
    assert report.leaking.tolist() == [0, 1]
    assert report.summary() == {"similarity": 0.9, "train_rows": 1, "test_rows": 3, "exact": 0, "near": 2}


def test_scripts_without_spaces_are_compared_by_character() -> None:
    assert find_leakage(["我想要退款我的订单今天谢谢"], ["我想要退款我的订单今天谢谢你"], 0.9).near.tolist() == [[0, 0]]


def test_texts_without_a_word_are_compared_exactly() -> None:
    report = find_leakage(["?!", "..."], ["?!", "!!"], 0.5)
    assert report.exact.tolist() == [[0, 0]]
    assert report.near.size == 0


@pytest.mark.parametrize(("train", "test"), [([], []), (["a"], []), ([], ["a"]), ([""], [""])])
def test_empty_sides_are_no_error(train: list[str], test: list[str]) -> None:
    report = find_leakage(train, test, 0.9)
    assert report.near.shape == (0, 2)
    assert len(report.exact) == (train == test == [""])


@pytest.mark.parametrize("similarity", [0.0, -1.0, 1.1, float("nan")])
def test_a_similarity_outside_its_range_is_refused(similarity: float) -> None:
    with pytest.raises(ValueError, match=r"similarity must lie in \(0, 1\]"):
        find_leakage(["a"], ["a"], similarity)


@pytest.mark.slow
@given(
    train=st.lists(FIVE_WORDS, max_size=12),
    test=st.lists(FIVE_WORDS, max_size=6),
    similarity=st.sampled_from([0.2, 0.5, 0.75, 0.8, 0.9, 1.0]),
)
@example(train=["we need this order now"], test=["we need this order"], similarity=0.8)
@settings(max_examples=100)
def test_nothing_is_missed_and_nothing_invented(train: list[str], test: list[str], similarity: float) -> None:
    report = find_leakage(train, test, similarity)
    best = {j: max((jaccard(a, b) for a in train), default=0.0) for j, b in enumerate(test)}
    copies = {j for j, b in enumerate(test) if b in train}
    assert set(report.exact[:, 0].tolist()) == copies
    assert set(report.near[:, 0].tolist()) == {j for j, s in best.items() if s >= similarity - 1e-9} - copies
    for (j, i), found in zip(report.near, report.near_similarity, strict=True):
        assert found == pytest.approx(best[j]) == pytest.approx(jaccard(train[i], test[j]))


def test_a_tenth_of_the_words_changed_is_found_in_long_texts_too() -> None:
    random = np.random.default_rng(7)
    words = np.array([f"w{i}" for i in range(5_000)])
    train = [" ".join(random.choice(words, 40, replace=False)) for _ in range(2_000)]
    test = [" ".join([f"new{i}a new{i}b", *train[i].split()[2:]]) for i in range(200)]
    report = find_leakage(train, test, 0.9)  # 38 of 42 words are common: 0.905
    assert report.near[:, 1].tolist() == list(range(200))


def test_a_word_that_half_of_the_customers_write_is_met_once_by_each_of_them() -> None:
    """Not by each copy of it: 3.6 billion pairs would take minutes."""
    report = find_leakage(["hello", *["Thanks"] * 60_000], ["thanks"] * 60_000 + ["thanks, thanks"], 0.9)
    assert (len(report.exact), report.exact[:, 1].max(), report.near.tolist()) == (60_000, 1, [[60_000, 1]])


def test_only_test_rows_that_repeat_a_learned_row_are_removed() -> None:
    frame = messages(100, text=[f"what about the order with number {i} that I made" for i in range(100)])
    rule = first_rule(frame, DataSpec())
    texts = frame["text"].to_list()
    texts[75], texts[90], texts[99] = texts[76], texts[75].upper(), texts[3]
    parted = split(frame.with_columns(text=np.array(texts)), rule)
    remaining, report = remove_leaking(parted, 0.95)
    assert sorted(set(frame["message_id"]) - set(remaining["message_id"])) == ["m99"]
    assert (len(report.exact), len(report.near)) == (1, 0)
    assert remove_leaking(remaining, 0.95)[1].leaking.size == 0


def test_the_real_history_keeps_a_test_set_worth_the_name() -> None:
    spec = DataSpec()
    frame = to_messages(read_table(real("messages.parquet")), spec.columns)
    parted = split(frame, first_rule(frame, spec))
    remaining, report = remove_leaking(parted, spec.near_duplicate_similarity)
    assert report.test_rows == pytest.approx(0.2 * frame.height, rel=0.01)
    assert (remaining["part"] == "test").sum() > 1_000
    assert remaining.filter(remaining["part"] != "test").height == report.train_rows
