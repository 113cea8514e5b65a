"""`mlops demo`: prepares a fresh home, starts the platform on a replayed clock, and tells the story.

Whatever happens, every process that was started is stopped again; the report is written as far as the
story came.
"""

from __future__ import annotations

import os
import shutil
import signal
import warnings
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mlops_assets import clock
from mlops_assets.declarations import SpecError, find_specs
from mlops_assets.demo.data import DemoData, DemoDataError, load_demo_data
from mlops_assets.demo.report import Report, StoryFailed
from mlops_assets.ops.processes import (
    AlreadyRunning,
    PortTaken,
    require_free_ports,
    require_not_running,
    stop_all,
)
from mlops_assets.ops.supervisor import PlatformFailed, Supervisor
from mlops_assets.settings import Settings
from mlops_assets.spec import ModelSpec

_TIME_SCALE = 1 / 60  # a minute of the canary policy passes in a second
_MARK = "demo/started"
_MADE_BY_ANY_COMMAND = "admin_token"


class HomeInUse(RuntimeError):
    """The state folder holds something that is not a demo's; it is not ours to remove."""


def run_demo(data: Path | None, exit_at_end: bool, console: Console) -> int:
    """Run the demo; returns the exit code: 0 told to the end, 1 failed, 130 interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    # A shell starts background jobs with it ignored; Python's own handler is the one that asyncio knows how to replace.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    settings = _settings()
    report = Report(settings.home.resolve() / "demo" / "report.json", console)
    try:
        spec = find_specs(settings.models_dir)[0]
        own = load_demo_data(data.resolve(), spec) if data is not None else None
        _fresh_home(settings, data)
        with report.step("set-up: databases, folders, data") as step:
            world = own or _embedded_world(settings, spec)
            _prepare(settings)
            clock.move(settings, world.ordinary_days[0])
            step.done(f"state under {settings.home}, data from {world.messages.parent}")
        _tell(settings, spec, world, report, exit_at_end)
    except KeyboardInterrupt:
        console.print("\ninterrupted; everything that was started is stopped")
        return 130
    except (AlreadyRunning, DemoDataError, HomeInUse, PlatformFailed, PortTaken, SpecError, StoryFailed) as error:
        console.print(Text.assemble(("\nthe demo failed: ", "bold red"), str(error)), soft_wrap=True)
        return 1
    return 0


def _tell(settings: Settings, spec: ModelSpec, world: DemoData, report: Report, exit_at_end: bool) -> None:
    from mlops_assets.demo.story import Story

    with Supervisor(settings) as platform:
        with report.step("the platform starts") as step:
            platform.wait_ready()
            report.urls = {
                "asset graph": f"{settings.dagster_url}/asset-groups",
                "experiments": settings.mlflow_url,
                "endpoint": f"{settings.endpoint}/docs",
            }
            step.done("; ".join(f"{name} {url}" for name, url in report.urls.items()))
        story = Story(settings, spec, world, platform, report)
        try:
            story.tell()
        finally:
            ledger = story.customers.ledger
            report.requests = {"sent": ledger.sent, "answered": ledger.answered, "failed": ledger.failed}
            report.write()
            report.show()
        if not exit_at_end:
            report.console.print("\nThe platform stays up; Ctrl-C stops it.")
            platform.wait()


def _settings() -> Settings:
    chosen = Settings()
    return chosen.model_copy(update={"replay_clock": True, "canary_time_scale": _TIME_SCALE})


def _fresh_home(settings: Settings, data: Path | None) -> None:
    """A demo begins with an empty home; only what an earlier demo left is stopped and removed.

    Raises:
        HomeInUse: the home holds something that no demo made, or the data that is to be shown.
        AlreadyRunning, PortTaken: a platform runs there, or something listens on its ports.
    """
    home = settings.home.resolve()
    require_not_running(settings)
    _require_ours_to_remove(home, data)
    stop_all(settings)
    require_free_ports(settings)
    if home.exists():
        shutil.rmtree(home)
    (home / _MARK).parent.mkdir(parents=True)
    (home / _MARK).touch()


def _require_ours_to_remove(home: Path, data: Path | None) -> None:
    if data is not None and data.resolve().is_relative_to(home):
        raise HomeInUse(f"{data} lies in {home}, which a demo empties first; move it, or set MLOPS_HOME elsewhere")
    found = {path.name for path in home.iterdir()} - {_MADE_BY_ANY_COMMAND} if home.exists() else set()
    if found and not (home / _MARK).exists():
        raise HomeInUse(
            f"{home} holds {', '.join(sorted(found))}, which no demo made, and a demo begins with an empty folder; "
            "set MLOPS_HOME to another one for the demo, or remove a platform's state with `mlops down --wipe`"
        )


def _embedded_world(settings: Settings, spec: ModelSpec) -> DemoData:
    from mlops_assets.simulation.world import generate, write_world

    folder = settings.home.resolve() / "demo" / "world"
    write_world(folder, generate())
    return load_demo_data(folder, spec)


def _prepare(settings: Settings) -> None:
    from mlops_assets.ops.processes import environment
    from mlops_assets.ops.setup import prepare

    warnings.simplefilter("ignore", DeprecationWarning)
    os.environ.update(environment(settings))
    prepare(settings)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
