"""Templates with slots and choices: how a short table of phrases becomes many different messages.

It knows the notation (``<slot>``, ``(this|that|)``) and how to draw from it. Which phrases there are is data
(`phrases/*.yaml`); what a label means and how often it occurs is left to the scenario.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_TOKEN = re.compile(r"<(?P<slot>[a-z_]+)>|(?P<mark>[(|)])|(?P<text>[^<>(|)]+)|(?P<stray>[<>])")
_SPACES = re.compile(r"\s+")
_SPACE_BEFORE_MARK = re.compile(r"\s+([,.?!])")


class GrammarError(ValueError):
    """A phrase table cannot be used; the message names the phrase, what is wrong and how to mend it."""


class Dice:
    """Cheap scalar draws: one block of uniform numbers at a time from a seeded generator.

    A call of ``Generator.random()`` per choice would take most of the time of a generation.
    """

    def __init__(self, generator: np.random.Generator, block: int = 8192) -> None:
        self._generator = generator
        self._block = block
        self._left: list[float] = []

    def uniform(self) -> float:
        """A number in [0, 1)."""
        if not self._left:
            self._left = self._generator.random(self._block).tolist()
        return self._left.pop()

    def below(self, limit: int) -> int:
        """An integer in 0 .. limit - 1."""
        return int(self.uniform() * limit)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.uniform() < probability


@dataclass(frozen=True)
class Literal:
    """Text as it stands."""

    text: str


@dataclass(frozen=True)
class Slot:
    """A name to be filled from a list of phrases or by a drawn number."""

    name: str


@dataclass(frozen=True)
class Choice:
    """Alternatives, each a sequence of parts, equally likely."""

    options: tuple[tuple[Part, ...], ...]


Part = Literal | Slot | Choice
Phrase = tuple[Part, ...]


def parse(template: str) -> Phrase:
    """Read one template.

    Raises
    ------
    GrammarError
        For an unbalanced bracket, a ``|`` outside brackets or a stray ``<``.

    Examples
    --------
    >>> parse("where is <ref>")
    (Literal(text='where is '), Slot(name='ref'))
    """
    open_choices: list[list[list[Part]]] = [[[]]]
    for token in _TOKEN.finditer(template):
        if token["slot"]:
            open_choices[-1][-1].append(Slot(token["slot"]))
        elif token["text"]:
            open_choices[-1][-1].append(Literal(token["text"]))
        elif token["mark"] == "(":
            open_choices.append([[]])
        elif token["mark"] == "|" and len(open_choices) > 1:
            open_choices[-1].append([])
        elif token["mark"] == ")" and len(open_choices) > 1:
            options = open_choices.pop()
            open_choices[-1][-1].append(Choice(tuple(tuple(option) for option in options)))
        else:
            raise GrammarError(f"stray {token[0]!r} at {token.start()} in {template!r}: balance the brackets")
    if len(open_choices) > 1:
        raise GrammarError(f"unclosed '(' in {template!r}: balance the brackets")
    return tuple(open_choices[0][0])


class Grammar:
    """Slots that templates may use.

    Parameters
    ----------
    slots
        Name -> templates that may fill it; they may use other slots.
    drawn
        Name -> function of the dice, for order numbers, amounts and the like.

    Examples
    --------
    >>> grammar = Grammar({"fruit": ["pear"]}, {})
    >>> grammar.expand(parse("a (ripe|ripe) <fruit>, please"), Dice(np.random.default_rng(0)))
    'a ripe pear, please'
    """

    def __init__(self, slots: Mapping[str, Sequence[str]], drawn: Mapping[str, Callable[[Dice], str]]) -> None:
        self._slots = {name: tuple(parse(template) for template in phrases) for name, phrases in slots.items()}
        self._drawn = dict(drawn)
        for phrases in self._slots.values():
            self.check(phrases)

    def check(self, phrases: Sequence[Phrase]) -> None:
        """Raise `GrammarError` if a phrase uses a slot that does not exist."""
        for name in {name for phrase in phrases for name in slot_names(phrase)}:
            if name not in self._slots and name not in self._drawn:
                known = ", ".join(sorted({*self._slots, *self._drawn}))
                raise GrammarError(f"slot <{name}> does not exist; known: {known}")

    def expand(self, phrase: Phrase, dice: Dice) -> str:
        """One text of a phrase, with single spaces and none before a punctuation mark."""
        text = _SPACES.sub(" ", self._fill(phrase, dice)).strip()
        return _SPACE_BEFORE_MARK.sub(r"\1", text)

    def _fill(self, phrase: Phrase, dice: Dice) -> str:
        pieces = []
        for part in phrase:
            if isinstance(part, Literal):
                pieces.append(part.text)
            elif isinstance(part, Choice):
                pieces.append(self._fill(part.options[dice.below(len(part.options))], dice))
            elif part.name in self._drawn:
                pieces.append(self._drawn[part.name](dice))
            else:
                phrases = self._slots[part.name]
                pieces.append(self._fill(phrases[dice.below(len(phrases))], dice))
        return "".join(pieces)


def slot_names(phrase: Phrase) -> set[str]:
    """The slots that a phrase uses, those inside choices included."""
    names: set[str] = set()
    for part in phrase:
        if isinstance(part, Slot):
            names.add(part.name)
        elif isinstance(part, Choice):
            names |= {name for option in part.options for name in slot_names(option)}
    return names
