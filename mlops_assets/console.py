"""What the commands of `mlops` share: where they print, how they fail, and the options that many of them take."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

console = Console()
errors = Console(stderr=True)

DEFAULT_MODEL = "intent_classifier"
Model = Annotated[str, typer.Option("--model", "-m", help="Name of a declared model.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]


def fail(message: str, code: int = 1) -> typer.Exit:
    """Say what is wrong on standard error and leave."""
    errors.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    return typer.Exit(code)
