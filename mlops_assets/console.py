"""What the commands of `mlops` share: where they print, how they fail, and the options that many of them take.

Messages, paths and answers of others are printed as they are: the consoles read neither markup nor emoji codes.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

_AS_IT_IS: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}

console = Console(**_AS_IT_IS)
errors = Console(stderr=True, **_AS_IT_IS)

DEFAULT_MODEL = "intent_classifier"
Model = Annotated[str, typer.Option("--model", "-m", help="Name of a declared model.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]


def fail(message: str, code: int = 1) -> typer.Exit:
    """Say what is wrong on standard error and leave."""
    said = Text("\n").join(plain(line) for line in message.splitlines())
    errors.print(Text.assemble(("error: ", "bold red"), said), soft_wrap=True)
    return typer.Exit(code)


def plain(text: str, style: str = "") -> Text:
    """Text of others for a terminal: no markup, and no control characters that would steer it.

    >>> plain("[red]a\\x1b[2J").plain
    '[red]a�[2J'
    """
    return Text("".join(c if c.isprintable() else "�" for c in text), style)
