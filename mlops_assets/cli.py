"""`mlops`: what people, cron and CI call.

Each command is a thin door: it parses, calls the part that does the work, and prints for a person or,
with --json, for a machine. Heavy imports happen inside the commands, so that --help is instant.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from mlops_assets.cli_canary import app as canary
from mlops_assets.console import DEFAULT_MODEL, AsJson, Model, console, fail, plain
from mlops_assets.settings import MARK, Settings, UnknownSetting, require_known_names

if TYPE_CHECKING:
    from mlops_assets.ops.forget import Forgotten
    from mlops_assets.ops.verify import Verification


class _Commands(TyperGroup):
    """Says a setting's fault in a line, whichever command reads the settings."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UnknownSetting as error:
            raise fail(str(error), 2) from error
        except ValidationError as error:
            if error.title != Settings.__name__:
                raise
            faults = [(str(fault["loc"][0]), fault["msg"].removeprefix("Value error, ")) for fault in error.errors()]
            raise fail("\n".join(f"MLOPS_{name.upper()}: {said}" for name, said in faults), 2) from error


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, add_completion=False, help="The closed loop for models in production."
)
app.add_typer(canary, name="canary")


@app.command()
def up(detach: Annotated[bool, typer.Option(help="Leave it running in the background.")] = False) -> None:
    """Start the platform: Dagster, MLflow and the endpoint, supervised. Ctrl-C stops all of it."""
    from mlops_assets.declarations import SpecError
    from mlops_assets.ops.processes import AlreadyRunning, PortTaken, require_not_running
    from mlops_assets.ops.setup import prepare
    from mlops_assets.ops.supervisor import PlatformFailed, Supervisor

    require_known_names()
    settings = Settings()
    try:
        require_not_running(settings)
    except AlreadyRunning as error:
        raise fail(str(error)) from error
    if detach:
        _detach(settings)
        return
    for stop in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell starts background jobs with it ignored
        signal.signal(stop, _interrupt)
    try:
        with console.status("preparing the stores"):
            prepare(settings)
        with Supervisor(settings) as platform:
            with console.status("waiting for every process to answer"):
                platform.wait_ready()
            _print_pages(settings)
            platform.wait()
    except (AlreadyRunning, PortTaken, PlatformFailed, SpecError) as error:
        raise fail(str(error)) from error
    except KeyboardInterrupt:
        console.print("stopped")


@app.command()
def down(
    wipe: Annotated[bool, typer.Option(help="Also remove all state, after asking.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Stop the platform; with --wipe, remove its state too."""
    from mlops_assets.ops.processes import stop_all
    from mlops_assets.ops.setup import is_home
    from mlops_assets.serving.local_ray import temporary_folder

    settings = Settings()
    console.print(f"stopped {stop_all(settings)} processes")
    home, temporary = settings.home.resolve(), temporary_folder(settings)
    if wipe and home.exists():
        if not is_home(settings):
            raise fail(f"{home} is no home of this platform: nothing removed", 2)
        if not yes and not typer.confirm(f"Remove {home} with every snapshot, model, prediction and label in it?"):
            raise typer.Exit(1)
        shutil.rmtree(home)
        shutil.rmtree(temporary, ignore_errors=True)
        console.print(f"removed {home}")


@app.command()
def status(as_json: AsJson = False) -> None:
    """What runs, which versions answer, and what the rollout is doing."""
    from mlops_assets.ops.status import platform_status

    found = platform_status(Settings())
    if as_json:
        typer.echo(json.dumps(found, indent=2, default=str))
    else:
        _print_status(found)
    raise typer.Exit(0 if found["healthy"] else 1)


@app.command()
def predict(
    text: str,
    customer: Annotated[str | None, typer.Option(help="Whose features to look up.")] = None,
    model: Model = DEFAULT_MODEL,
) -> None:
    """Ask the endpoint about one message."""
    from mlops_assets.resources.endpoint import Endpoint, EndpointRefused, EndpointUnavailable

    try:
        answer = Endpoint(Settings()).predict(model, text, customer_id=customer, return_probabilities=True)
    except (EndpointRefused, EndpointUnavailable) as error:
        raise fail(str(error)) from error
    typer.echo(json.dumps(answer, indent=2))


@app.command()
def explain(prediction_id: str, as_json: AsJson = False) -> None:
    """Where one prediction came from: version, run, data, features, spec, code, and the evidence of each decision."""
    from mlops_assets.declarations import SpecError
    from mlops_assets.ops.explain import UnknownPrediction, explain_prediction

    try:
        found = explain_prediction(Settings(), prediction_id)
    except (SpecError, UnknownPrediction) as error:
        raise fail(str(error)) from error
    if as_json:
        typer.echo(json.dumps(found, indent=2, default=str))
    else:
        _print_explanation(found)


@app.command()
def verify(version: int, model: Model = DEFAULT_MODEL, as_json: AsJson = False) -> None:
    """Recompute the evidence of a release: exit 0 it follows, 1 it does not, 2 it could not be recomputed."""
    from mlops_assets.ops.verify import verify_version

    found = verify_version(Settings(), model, version)
    if as_json:
        typer.echo(json.dumps({**asdict(found), "state": found.state}, indent=2))
    else:
        _print_verification(found)
    raise typer.Exit(found.exit_code)


@app.command()
def replay(
    policy: Annotated[Path, typer.Option(help="A model's defs.yaml, or a YAML of the sections to try in its place.")],
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day, in event time.")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day, included.")],
    output: Annotated[Path | None, typer.Option(dir_okay=False, help="Also write the JSON to this file.")] = None,
    model: Model = DEFAULT_MODEL,
    as_json: AsJson = False,
) -> None:
    """Re-run a policy over the stored history: what it would have paged, retrained, released, beside what happened."""
    from mlops_assets.ops.replay import ReplayRefused, replay_policy
    from mlops_assets.replay.report import as_document, as_table
    from mlops_assets.storage import to_json, write_json

    try:
        found = replay_policy(Settings(), model, policy, first.date(), last.date())
        if output:
            write_json(output, as_document(found))
    except (ReplayRefused, OSError) as error:
        raise fail(str(error), 2) from error
    if as_json:
        typer.echo(to_json(as_document(found)))
    else:
        console.print(as_table(found))


@app.command()
def ingest(
    messages: Annotated[Path | None, typer.Option(help="File of messages (parquet, csv, ndjson).")] = None,
    customer_events: Annotated[Path | None, typer.Option(help="File of customer events.")] = None,
    replace: Annotated[bool, typer.Option(help="In place of the file of this name that came in before.")] = False,
    model: Model = DEFAULT_MODEL,
) -> None:
    """Put messages into a model's inbox, customer events into that of all models; the sensors take it from there."""
    from mlops_assets.declarations import SpecError, find_spec
    from mlops_assets.ops.inbox import InboxRefused, put

    if not messages and not customer_events:
        raise fail("nothing to ingest: give --messages FILE or --customer-events FILE", 2)
    try:
        find_spec(Settings().models_dir, model)
        inbox = Settings().model_home(model).incoming / "messages"
        for source, folder in ((messages, inbox), (customer_events, Settings().customer_events)):
            if source:
                console.print(f"in the inbox: {put(source, folder, replace=replace)}")
    except (InboxRefused, SpecError) as error:
        raise fail(str(error), 2) from error


@app.command()
def submit(
    folder: Annotated[Path, typer.Argument(help="An exported model: model.onnx, tokenizer.json, manifest.json.")],
    waive: Annotated[str, typer.Option(help="Let it past a failed gate, for this recorded reason.")] = "",
    by: Annotated[str, typer.Option(help="Who waives.")] = "",
    model: Model = DEFAULT_MODEL,
) -> None:
    """Send a model that was built elsewhere through the gate and, if it passes or is waived, into a canary."""
    from mlops_assets.declarations import SpecError
    from mlops_assets.ops.submit import SubmissionRefused, submit_artefact
    from mlops_assets.release.gate_inputs import IncompleteWaiver
    from mlops_assets.resources.dagster_api import DagsterUnavailable

    try:
        run = submit_artefact(Settings(), model, folder, waiver_reason=waive, waived_by=by)
    except (IncompleteWaiver, SpecError) as error:
        raise fail(str(error), 2) from error
    except (SubmissionRefused, DagsterUnavailable) as error:
        raise fail(str(error)) from error
    console.print(f"submitted: {Settings().dagster_url}/runs/{run}")


@app.command()
def register(
    address: Annotated[
        str, typer.Argument(help="An MLflow model: models:/NAME/VERSION, models:/m-ID or runs:/RUN/NAME.")
    ],
    waive: Annotated[str, typer.Option(help="Release it without the gate, for this recorded reason.")] = "",
    by: Annotated[str, typer.Option(help="Who waives.")] = "",
    model: Model = DEFAULT_MODEL,
) -> None:
    """Make a model of any MLflow flavour a version that can be served. This runs its code, as serving it does."""
    from mlops_assets.clock import ClockNotSet
    from mlops_assets.declarations import SpecError
    from mlops_assets.ops.register import RegistrationRefused, next_step, register_model
    from mlops_assets.release.gate_inputs import IncompleteWaiver
    from mlops_assets.resources.registry import AliasConflict, RegistryUnavailable, UnknownAddress

    try:
        version = register_model(Settings(), model, address, waiver_reason=waive, waived_by=by)
    except (IncompleteWaiver, SpecError) as error:
        raise fail(str(error), 2) from error
    except (AliasConflict, ClockNotSet, RegistrationRefused, RegistryUnavailable, UnknownAddress) as error:
        raise fail(str(error)) from error
    console.print(
        f"version {version.version} of {model}, digest {version.artefact_digest}: {next_step(version)}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def check_drift(
    reference: Annotated[Path, typer.Option(help="The data to compare with: parquet, CSV or NDJSON.")],
    current: Annotated[Path, typer.Option(help="The data to judge.")],
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Error rate of the whole comparison: the chance of an alarm when nothing has changed."
            " [default: the spec's, else 0.05]"
        ),
    ] = None,
    spec: Annotated[
        Path | None, typer.Option(help="A model's defs.yaml, whose `drift:` section gives the limits.")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="A column to leave out; may be given again.")] = None,
    output: Annotated[Path | None, typer.Option(dir_okay=False, help="Also write an HTML report.")] = None,
    as_json: AsJson = False,
) -> None:
    """Has the data drifted? Exit 0: no; 1: yes; 2: could not say."""
    from mlops_assets.data.tables import BadTable
    from mlops_assets.declarations import SpecError
    from mlops_assets.ops.check_drift import EXIT_CODES, compare_files, find_limits
    from mlops_assets.report.comparison import CannotCompare
    from mlops_assets.report.drift_page import comparison_page
    from mlops_assets.report.terminal import as_document, as_table, not_compared, summary
    from mlops_assets.storage import to_json, write_atomic

    try:
        found = compare_files(reference, current, find_limits(spec, threshold), ignore or [])
        if output:
            write_atomic(output, comparison_page(found).encode())
    except (BadTable, CannotCompare, SpecError, OSError) as error:
        if as_json:
            typer.echo(to_json({"verdict": "error", "summary": str(error)}))
        raise fail(str(error), 2) from error
    if as_json:
        typer.echo(to_json(as_document(found)))
    else:
        console.print(*summary(found), as_table(found), *not_compared(found), sep="\n")
        if output:
            console.print(f"report: {output}", soft_wrap=True)
    raise typer.Exit(EXIT_CODES[found.drift.verdict])


@app.command()
def data_quality(
    output: Annotated[Path, typer.Option(dir_okay=False, help="The report.")] = Path("reports/data_quality.html"),
    model: Model = DEFAULT_MODEL,
) -> None:
    """Write the data-quality report of a model: its days, quarantine, labels, drift and quality, as one HTML file."""
    from mlops_assets.ops.data_quality import DataUnreadable, report_quality

    try:
        said = report_quality(Settings(), model, output)
    except (DataUnreadable, OSError) as error:
        raise fail(str(error), 2) from error
    console.print(said, soft_wrap=True)


@app.command()
def token(as_json: AsJson = False) -> None:
    """Make a token. It is shown once and kept nowhere; the endpoint is given its hash."""
    from mlops_assets.tokens import hash_of, new_token

    made = new_token()
    if as_json:
        typer.echo(json.dumps({"token": made, "hash": hash_of(made)}))
        return
    typer.echo(f"the token, for who calls (as MLOPS_TOKEN for `mlops`):\n  {made}")
    typer.echo(f"its hash, for the endpoint (as MLOPS_ADMIN_TOKEN or MLOPS_PREDICT_TOKEN):\n  {hash_of(made)}")


@app.command()
def forget(
    customer_id: str,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a customer's rows from every store of every model, and say what went from where. May be repeated."""
    from mlops_assets.declarations import SpecError
    from mlops_assets.ops.forget import ForgetRefused, forget_customer
    from mlops_assets.resources.feast import FeatureStoreDown

    settings = Settings()
    if not yes and not typer.confirm(f"Remove every row of customer {customer_id} under {settings.home}, for good?"):
        raise typer.Exit(1)
    try:
        found = forget_customer(settings, customer_id)
    except (FeatureStoreDown, ForgetRefused, SpecError) as error:
        raise fail(str(error)) from error
    if as_json:
        typer.echo(json.dumps({**asdict(found), "rows": found.rows}, indent=2))
    else:
        _print_forgotten(found)
    if found.meanwhile:
        runs = ", ".join(found.meanwhile)
        raise fail(f"run {runs} began meanwhile and may have read what is gone: once it has ended, ask again")


@app.command()
def approve(
    version: Annotated[int, typer.Argument(help="The version that was judged fit and waits.", min=1)],
    by: Annotated[str, typer.Option(help="Who agrees.")],
    model: Model = DEFAULT_MODEL,
) -> None:
    """Let a version go into production that was judged fit, where the canary's policy says `approval: manual`."""
    from mlops_assets.ops.approve import ApprovalRefused, approve_version
    from mlops_assets.resources.dagster_api import DagsterUnavailable
    from mlops_assets.resources.endpoint import EndpointRefused, EndpointUnavailable

    try:
        approve_version(Settings(), model, version, by=by)
    except (ApprovalRefused, DagsterUnavailable, EndpointRefused, EndpointUnavailable) as error:
        raise fail(str(error)) from error
    console.print(f"version {version} of {model} is approved by {by}; the rollout sensor takes it from there")


@app.command()
def demo(
    data: Annotated[Path | None, typer.Option(help="Folder with your own data, as docs/data.md describes.")] = None,
    exit_at_end: Annotated[bool, typer.Option("--exit", help="Stop the platform at the end.")] = False,
) -> None:
    """Run the closed loop from the first history to a rolled-back bad version, and show every decision."""
    from mlops_assets.demo.command import run_demo

    require_known_names()
    raise typer.Exit(run_demo(data, exit_at_end, console))


def _detach(settings: Settings) -> None:
    log = settings.home / "logs" / "supervisor.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "mlops_assets.cli", "up"],
            stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, MARK: str(settings.home.resolve())},
        )  # fmt: skip
    console.print(f"starting in the background (process {child.pid}, log {log}); `mlops status` says when it is up")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _print_pages(settings: Settings) -> None:
    console.print(f"asset graph  {settings.dagster_url}")
    console.print(f"experiments  {settings.mlflow_url}")
    console.print(f"endpoint     {settings.endpoint}/docs")
    console.print("Ctrl-C stops all of it.")


def _print_status(found: dict[str, Any]) -> None:
    table = Table("part", "state", "detail", box=None, header_style="bold")
    for part in found["parts"]:
        colour = "green" if part["ok"] else "red"
        table.add_row(part["name"], Text(part["state"], colour), part["detail"])
    console.print(table)


def _print_verification(found: Verification) -> None:
    colours = {"follows": "green", "differs": "red", "missing": "yellow"}
    for finding in found.findings:
        again = "" if finding.again == finding.recorded else f", again: {finding.again or 'not made'}"
        state = (f"{finding.state:8} ", colours[finding.state])
        console.print(Text.assemble(state, (finding.name, "bold"), f"  {finding.recorded}{again}"), soft_wrap=True)
        if finding.message:
            console.print(f"         {finding.message}", style="dim", soft_wrap=True)
    verdicts = {
        "follows": "follows from its inputs",
        "differs": "does NOT follow",
        "missing": "could not be recomputed",
    }
    console.print(f"{found.model} {found.version}: the evidence {verdicts[found.state]}")


def _print_forgotten(found: Forgotten) -> None:
    table = Table("store", "rows", "files", box=None, header_style="bold")
    for store in found.removed:
        table.add_row(store.store, str(store.rows), str(store.files))
    console.print(table, f"{found.rows} rows are gone", sep="\n")
    console.print("kept: registered models, counts, and the evidence of decisions, which name no customer", style="dim")
    for path in (path for store in found.removed for path in store.unsearched):
        console.print(f"cannot be read, so not searched: {path}", style="yellow", soft_wrap=True)


def _print_explanation(found: dict[str, Any]) -> None:
    for section, fields in found.items():
        console.rule(section, align="left", style="dim")
        for name, value in fields.items():
            shown = value if isinstance(value, str | int | float | type(None)) else json.dumps(value, default=str)
            console.print(Text.assemble(("  " + name, "bold"), "  ", plain(str(shown))), soft_wrap=True)


if __name__ == "__main__":
    app()
