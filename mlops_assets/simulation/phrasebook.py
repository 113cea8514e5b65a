"""Reads the phrase tables of a world and turns them into topics that messages can be drawn from.

A topic is what somebody writes about; its label is how the desk files it. In an ambiguous topic the desk's answer
is a coin flip with the stated probabilities, so no model can do better than the larger of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from mlops_assets.simulation.grammar import Dice, Grammar, GrammarError, Phrase, parse
from mlops_assets.simulation.style import CHANNELS, Manners

_ORDINALS = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd", 31: "st"}
_BOOKING_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


@dataclass(frozen=True)
class Topic:
    """Phrases about one thing.

    Attributes
    ----------
    labels
        Label -> probability that the desk files such a message under it; they sum to 1.
    formerly
        The label that the same kind of message had at home, where the shifted world files it differently.
    """

    name: str
    labels: Mapping[str, float]
    weight: float
    phrases: tuple[Phrase, ...]
    formerly: str | None = None


@dataclass(frozen=True)
class PhraseBook:
    """Everything that can be said in one world."""

    world: str
    by_label: Mapping[str, tuple[Topic, ...]]
    ambiguous: tuple[Topic, ...]
    manners: Manners
    grammar: Grammar


@cache
def load_book(world: str) -> PhraseBook:
    """Read the phrases of ``home`` or ``away``, with what both share.

    Raises
    ------
    GrammarError
        If a phrase is malformed or uses an unknown slot.

    Examples
    --------
    >>> sorted(load_book("home").by_label)
    ['complaint', 'farewell', 'greeting', 'order_status', 'other', 'query', 'refund']
    """
    common, own = _read("common"), _read(world)
    grammar = Grammar({**common["slots"], **own["slots"]}, _DRAWN)
    by_label: dict[str, list[Topic]] = {}
    for row in own["topics"]:
        by_label.setdefault(row["label"], []).append(_topic(row, {row["label"]: 1.0}, grammar))
    for label in ("greeting", "farewell"):
        row = {"name": label, "templates": [*common[label], *own.get(label, [])]}
        by_label[label] = [_topic(row, {label: 1.0}, grammar)]
    ambiguous = tuple(_topic(row, row["labels"], grammar) for row in own["ambiguous"])
    frozen = {label: tuple(topics) for label, topics in by_label.items()}
    return PhraseBook(world, frozen, ambiguous, _manners(common, grammar), grammar)


def _read(name: str) -> dict[str, Any]:
    text = files("mlops_assets.simulation").joinpath("phrases", f"{name}.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def _topic(row: Mapping[str, Any], labels: Mapping[str, float], grammar: Grammar) -> Topic:
    if abs(sum(labels.values()) - 1) > 1e-9:
        raise GrammarError(f"topic {row['name']}: label probabilities {dict(labels)} must sum to 1")
    return Topic(
        name=row["name"],
        labels=dict(labels),
        weight=float(row.get("weight", 1)),
        phrases=_phrases(row["name"], row["templates"], grammar),
        formerly=row.get("formerly"),
    )


def _phrases(where: str, templates: list[Any], grammar: Grammar) -> tuple[Phrase, ...]:
    for template in templates:
        if not isinstance(template, str):
            raise GrammarError(f"{where}: {template!r} is no text; put it in quotes")
    phrases = tuple(parse(template) for template in templates)
    grammar.check(phrases)
    return phrases


def _manners(common: Mapping[str, Any], grammar: Grammar) -> Manners:
    return Manners(
        opening={c: _phrases(f"opening {c}", common["opening"][c], grammar) for c in CHANNELS},
        closing={c: _phrases(f"closing {c}", common["closing"][c], grammar) for c in CHANNELS},
        fillers=tuple(common["fillers"]),
    )


def _order(dice: Dice) -> str:
    digits = str(10_000_000 + dice.below(90_000_000))
    return (digits, f"#{digits[:6]}", f"{digits[:4]}-{digits[4:]}", f"A{digits[:5]}")[dice.below(4)]


def _amount(dice: Dice) -> str:
    euros, cents = 5 + dice.below(295), ("00", "50", "90", "95", "99")[dice.below(5)]
    return (f"{euros}.{cents}", f"{euros} euros", f"£{euros}", f"€{euros}.{cents}")[dice.below(4)]


def _ordinal(dice: Dice) -> str:
    day = 1 + dice.below(31)
    return f"{day}{_ORDINALS.get(day, 'th')}"


def _booking(dice: Dice) -> str:
    return "".join(_BOOKING_LETTERS[dice.below(len(_BOOKING_LETTERS))] for _ in range(6))


_DRAWN = {"order": _order, "amount": _amount, "ordinal": _ordinal, "booking": _booking}
