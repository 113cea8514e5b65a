"""How a message looks by the channel it came through: chat, e-mail or a transcribed call, and how people mistype.

It knows nothing of labels: the same request can be wrapped in any of the three ways.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mlops_assets.simulation.grammar import Dice, Grammar, Phrase

CHANNELS = {"chat": 0.55, "email": 0.25, "voice": 0.20}
TYPO_SHARE = {"chat": 0.14, "email": 0.07, "voice": 0.0}
MAX_TYPOS = 2
FILLER_SHARE = 0.35

_NEIGHBOURS = {
    "a": "sq",
    "e": "wr",
    "i": "uo",
    "o": "ip",
    "u": "yi",
    "n": "bm",
    "t": "ry",
    "s": "ad",
    "r": "et",
    "l": "k",
}
_SHORT_FORMS = {"you": "u", "are": "r", "please": "pls", "because": "cos", "tomorrow": "tmrw", "and": "&", "okay": "ok"}
_SHORT_FORM_SHARE = 0.08
_VOICE_DROPS = re.compile(r"[?!,.;:](?=\s|$)")


@dataclass(frozen=True)
class Manners:
    """What each channel says before and after the request itself (channel -> phrases)."""

    opening: dict[str, tuple[Phrase, ...]]
    closing: dict[str, tuple[Phrase, ...]]
    fillers: tuple[str, ...]


def dress(core: str, channel: str, manners: Manners, grammar: Grammar, dice: Dice) -> str:
    """Wrap a request in its channel's manners: opening, closing, spelling and punctuation."""
    if channel == "email":
        return _email(core, manners, grammar, dice)
    if channel == "voice":
        return _voice(core, manners, grammar, dice)
    return _chat(core, manners, grammar, dice)


def plain(core: str, channel: str, dice: Dice) -> str:
    """A greeting or farewell as the channel spells it: it needs no opening or closing of its own."""
    if channel == "voice":
        return _VOICE_DROPS.sub("", core).lower()
    return mistype(_sentence(core) if channel == "email" else core, TYPO_SHARE[channel], dice)


def mistype(text: str, share: float, dice: Dice) -> str:
    """With probability `share`, one or two slips of the keyboard: swapped, lost, doubled or neighbouring letters."""
    if not dice.chance(share):
        return text
    for _ in range(1 + dice.below(MAX_TYPOS)):
        at = dice.below(max(len(text) - 1, 1))
        if text[at : at + 2].isalpha() and len(text) > 3:
            text = text[:at] + _slip(text[at], text[at + 1], dice) + text[at + 2 :]
    return text


def _slip(first: str, second: str, dice: Dice) -> str:
    neighbour = _NEIGHBOURS.get(first, first)
    return (second + first, second, first * 2 + second, neighbour[dice.below(len(neighbour))] + second)[dice.below(4)]


def _chat(core: str, manners: Manners, grammar: Grammar, dice: Dice) -> str:
    words = [_SHORT_FORMS[w] if w in _SHORT_FORMS and dice.chance(_SHORT_FORM_SHARE) else w for w in core.split(" ")]
    text = mistype(" ".join(words), TYPO_SHARE["chat"], dice)
    if dice.chance(0.5):
        text = text.lower()
    if dice.chance(0.25):
        text = f"{_any(manners.opening['chat'], grammar, dice)}{', ' if dice.chance(0.5) else ' '}{text}"
    if dice.chance(0.2):
        text += f" {_any(manners.closing['chat'], grammar, dice)}"
    return text + ("?" if dice.chance(0.15) else "")


def _email(core: str, manners: Manners, grammar: Grammar, dice: Dice) -> str:
    text = mistype(_sentence(core), TYPO_SHARE["email"], dice)
    if dice.chance(0.6):
        text = f"{_any(manners.opening['email'], grammar, dice)} {text}"
    if dice.chance(0.6):
        text += f" {_any(manners.closing['email'], grammar, dice)}"
    return text


def _voice(core: str, manners: Manners, grammar: Grammar, dice: Dice) -> str:
    words = _VOICE_DROPS.sub("", core).lower().split(" ")
    if dice.chance(FILLER_SHARE):
        words.insert(dice.below(len(words) + 1), manners.fillers[dice.below(len(manners.fillers))])
    text = " ".join(words)
    if dice.chance(0.5):
        text = f"{_any(manners.opening['voice'], grammar, dice)} {text}"
    if dice.chance(0.3):
        text += f" {_any(manners.closing['voice'], grammar, dice)}"
    return _VOICE_DROPS.sub("", text).lower()


def _sentence(core: str) -> str:
    return core[:1].upper() + core[1:] + ("" if core.endswith((".", "?", "!")) else ".")


def _any(phrases: Sequence[Phrase], grammar: Grammar, dice: Dice) -> str:
    return grammar.expand(phrases[dice.below(len(phrases))], dice)
