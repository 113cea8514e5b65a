"""`mlops canary`: thin doors to `ops.canary`, which does the work, and to `ops.canary_view`, which shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from mlops_assets.console import DEFAULT_MODEL, AsJson, Model, console, fail
from mlops_assets.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Offer a version to a share of the traffic; watch, stop, promote it.")

# How `watch` ends, for a script that waits for it.
_EXIT_CODES = {"succeeded": 0, "failed": 1, "inconclusive": 3}
_NOT_TOLD = 2
_INTERRUPTED = 130


@app.command()
def start(
    version: Annotated[int, typer.Argument(help="A registered version that passed the gate.", min=1)],
    model: Model = DEFAULT_MODEL,
) -> None:
    """Offer a registered version again: it becomes the candidate, and its canary begins."""
    from mlops_assets.ops.canary import offer

    with _said_in_one_line():
        run = offer(Settings(), model, version)
    console.print(f"version {version} of {model} is offered: {Settings().dagster_url}/runs/{run}; `mlops canary watch`")


@app.command()
def status(model: Model = DEFAULT_MODEL, as_json: AsJson = False) -> None:
    """Where the newest rollout stands: one look."""
    from mlops_assets.ops.canary import Look, rollout_of
    from mlops_assets.ops.canary_view import as_shown

    with _said_in_one_line():
        rollout = rollout_of(Settings(), model)
    if as_json:
        typer.echo(json.dumps(rollout, indent=2))
    else:
        console.print(as_shown(Look(rollout, 0.0)))


@app.command()
def watch(model: Model = DEFAULT_MODEL) -> None:
    """Follow the newest rollout until it is over: exit 0 promoted, 1 stopped, 3 no verdict; 2: it cannot be looked at.

    Ctrl-C leaves it alone.
    """
    from rich.live import Live

    from mlops_assets.ops.canary import watch as looks
    from mlops_assets.ops.canary_view import as_shown

    before = None
    try:
        with _said_in_one_line(_NOT_TOLD), Live(console=console, auto_refresh=False) as live:
            for look in looks(Settings(), model):
                live.update(as_shown(look, before), refresh=True)
                before = look
    except KeyboardInterrupt:
        console.print("no longer watched; the rollout goes on")
        raise typer.Exit(_INTERRUPTED) from None
    assert before is not None
    raise typer.Exit(_EXIT_CODES[before.rollout["phase"]])


@app.command()
def abort(
    version: Annotated[int, typer.Argument(help="The version whose rollout is to be stopped.", min=1)],
    reason: Annotated[str, typer.Option(help="Why; it stands in the evidence.")],
    model: Model = DEFAULT_MODEL,
) -> None:
    """Stop a rollout at once: the stable version answers everybody."""
    from mlops_assets.ops.canary import abort as stop

    with _said_in_one_line():
        why = stop(Settings(), model, version, reason)
    console.print(f"version {version} of {model} is stopped: {why}", soft_wrap=True)


@app.command()
def promote(
    version: Annotated[int, typer.Argument(help="The version that was judged fit.", min=1)],
    model: Model = DEFAULT_MODEL,
) -> None:
    """Have a version promoted that was judged fit; refused while it is not."""
    from mlops_assets.ops.canary import promote as seal_and_launch

    with _said_in_one_line():
        run = seal_and_launch(Settings(), model, version)
    console.print(f"version {version} of {model} is sealed and on its way: {Settings().dagster_url}/runs/{run}")


@contextmanager
def _said_in_one_line(code: int = 1) -> Iterator[None]:
    """Every refusal of the doors behind these commands, as an error of one line and this exit status."""
    from mlops_assets.ops.canary import CanaryRefused
    from mlops_assets.resources.dagster_api import DagsterUnavailable
    from mlops_assets.resources.endpoint import EndpointRefused, EndpointUnavailable
    from mlops_assets.resources.registry import (
        AliasConflict,
        RegistryNotPrepared,
        RegistryUnavailable,
        UnknownVersion,
    )

    try:
        yield
    except (
        *(AliasConflict, CanaryRefused, DagsterUnavailable, EndpointRefused, EndpointUnavailable),
        *(RegistryNotPrepared, RegistryUnavailable, UnknownVersion),
    ) as error:
        raise fail(str(error), code) from error
