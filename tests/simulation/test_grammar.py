"""The notation of the phrase tables, and what it refuses."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.simulation.grammar import Dice, Grammar, GrammarError, parse, slot_names
from mlops_assets.simulation.phrasebook import PhraseBook, Topic, load_book
from mlops_assets.simulation.scenario import AWAY_MIX, HOME_MIX

FRUIT = Grammar({"fruit": ["pear", "<colour> apple"], "colour": ["red", "green"]}, {"count": lambda d: str(d.below(9))})


WORLDS = ("home", "away")


def dice(seed: int = 0) -> Dice:
    return Dice(np.random.default_rng(seed))


def topics_of(book: PhraseBook) -> list[Topic]:
    return [*chain.from_iterable(book.by_label.values()), *book.ambiguous]


def test_choices_nest_and_may_be_empty():
    phrase = parse("(one (ripe|hard)|two|) <fruit>")
    texts = {FRUIT.expand(phrase, dice(seed)) for seed in range(200)}
    fruits = ("pear", "red apple", "green apple")
    assert texts == {f"{start}{fruit}" for start in ("one ripe ", "one hard ", "two ", "") for fruit in fruits}


def test_spaces_are_single_and_none_precedes_punctuation():
    assert FRUIT.expand(parse(" a  (|) , b  (|)? "), dice()) == "a, b?"


@pytest.mark.parametrize("template", ["(a|b", "a)", "a|b", "a <b", "x > y"])
def test_malformed_templates_are_refused_with_their_text(template):
    with pytest.raises(GrammarError, match="balance the brackets"):
        parse(template)


def test_an_unknown_slot_is_refused_and_the_known_ones_are_named():
    with pytest.raises(GrammarError, match=r"<vegetable> does not exist; known: colour, count, fruit"):
        FRUIT.check([parse("(a|some <vegetable>)")])


def test_slots_inside_choices_are_found():
    assert slot_names(parse("<a> (x <b>|(<c>|y))")) == {"a", "b", "c"}


@given(st.integers(1, 50), st.integers(0, 1000))
def test_dice_stay_below_their_limit(limit, seed):
    thrown = dice(seed)
    assert all(0 <= thrown.below(limit) < limit for _ in range(20))


@pytest.mark.parametrize("world", WORLDS)
def test_every_world_can_speak_of_every_label(world):
    book = load_book(world)
    assert set(book.by_label) == set(HOME_MIX) == set(AWAY_MIX)
    for topic in topics_of(book):
        assert sum(topic.labels.values()) == pytest.approx(1)
        for phrase in topic.phrases:
            assert book.grammar.expand(phrase, dice())


def test_the_grammar_is_rich():
    assert sum(len(topic.phrases) for world in WORLDS for topic in topics_of(load_book(world))) >= 250


def test_the_concept_shift_moves_queries_to_order_status_and_refund():
    moved = {topic.formerly: set() for topic in topics_of(load_book("away")) if topic.formerly}
    for topic in topics_of(load_book("away")):
        if topic.formerly:
            moved[topic.formerly] |= set(topic.labels)
    assert moved == {"query": {"order_status", "refund"}}
    assert not any(topic.formerly for topic in topics_of(load_book("home")))
