"""Channels change how a request looks, never what it asks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.simulation.grammar import Dice
from mlops_assets.simulation.phrasebook import load_book
from mlops_assets.simulation.style import CHANNELS, MAX_TYPOS, dress, mistype, plain

BOOK = load_book("home")
CORE = "I want my money back for order 4711, please"


def dressed(channel: str, seed: int) -> str:
    return dress(CORE, channel, BOOK.manners, BOOK.grammar, Dice(np.random.default_rng(seed)))


@pytest.mark.parametrize("channel", CHANNELS)
def test_one_request_takes_many_forms(channel):
    assert len({dressed(channel, seed) for seed in range(60)}) > 15


def test_a_transcript_has_no_capitals_and_no_punctuation():
    texts = [dressed("voice", seed) for seed in range(60)]
    assert all(text == text.lower() and not set(text) & set("?!,;:") for text in texts)


def test_an_email_holds_a_sentence_that_ends():
    texts = [dressed("email", seed) for seed in range(60)]
    assert sum(f"{CORE}." in text for text in texts) > 40  # the others hold a typo


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_greeting_gets_no_second_greeting(channel):
    texts = {plain("Good day Ruth", channel, Dice(np.random.default_rng(seed))) for seed in range(30)}
    assert all(len(text.split()) <= 3 + MAX_TYPOS for text in texts)
    assert "good day ruth" in {text.lower().rstrip(".") for text in texts}


@given(st.text(alphabet="abcdefgh ijk.", min_size=0, max_size=80), st.integers(0, 10_000))
def test_typos_change_at_most_a_few_characters(text, seed):
    slipped = mistype(text, 1.0, Dice(np.random.default_rng(seed)))
    assert abs(len(slipped) - len(text)) <= MAX_TYPOS


def test_nobody_mistypes_at_share_zero():
    assert mistype(CORE, 0.0, Dice(np.random.default_rng(0))) == CORE
