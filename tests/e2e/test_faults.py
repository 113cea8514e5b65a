"""The loop under kill -9: whatever is killed in whichever phase, it ends in the right state.

The story of the demo is told on the embedded world while processes are killed under it: the daemon while history is
ingested, the run worker in the middle of training, the webserver on an ordinary day, and in the canary's phases its
own replica, the guard, the ingress, and at last the whole of Ray.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import polars as pl
import psutil
import pytest
from rich.console import Console

from mlops_assets import clock
from mlops_assets.declarations import find_specs
from mlops_assets.demo.data import DemoData, load_demo_data
from mlops_assets.demo.report import Report
from mlops_assets.demo.story import Story
from mlops_assets.ops.processes import ours
from mlops_assets.ops.run_launcher import PID_TAG
from mlops_assets.ops.setup import prepare
from mlops_assets.ops.supervisor import Supervisor
from mlops_assets.resources.registry import Registry, Version
from mlops_assets.settings import Settings
from mlops_assets.simulation.world import generate, write_world
from mlops_assets.storage import read_json

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(1500)]


class SabotagedStory(Story):
    """The demo's story, with a kill -9 in each phase."""

    killed: tuple[str, ...] = ()

    def kill(self, what: str, pid: int) -> None:
        self.killed = (*self.killed, what)
        os.kill(pid, signal.SIGKILL)

    def replica(self, name: str) -> int:
        """The process of a Serve deployment's replica."""
        return self._until(f"the {name} replica", lambda: find_replica(self.settings, name))

    def _history(self) -> None:
        self.kill("daemon", self.platform.pid("dagster-daemon"))
        super()._history()

    def _first_model(self) -> Version:
        self.kill("run worker", self._until("the training run", self._training_worker))
        return super()._first_model()

    def _ordinary_days(self) -> None:
        self.kill("webserver", self.platform.pid("dagster-webserver"))
        self._until("the webserver to be back", self._webserver_answers)
        super()._ordinary_days()

    def _load_until(self, day: datetime, settled: Callable[[], bool]) -> int:
        """While the first canary is judged, its replica, the guard and the ingress die one after the other."""
        for name in ("CanaryProcess", "GuardProcess", "Ingress"):
            if name not in self.killed:
                self.customers.repeat(day, day.replace(hour=12), at=day.replace(hour=23), limit=50)
                self.kill(name, self.replica(name))
                self._until("the endpoint to be back", self._serving_again)
        return super()._load_until(day, settled)

    def _remaining_days(self, days: list[datetime]) -> None:
        killed = self.platform.pid("serving")
        self.kill("serving", killed)
        self._until("the endpoint to be started anew", lambda: self._started_after(killed))
        self._until("the endpoint to be back", self._serving_again)
        super()._remaining_days(days)

    def _started_after(self, killed: int) -> bool:
        """Whether another process than the killed one says that it is ready; the old one's replicas linger."""
        note = self.settings.home / "run" / "serving.json"
        return note.exists() and read_json(note)["pid"] == self.platform.pid("serving") != killed

    def _training_worker(self) -> int | None:
        """The worker of a run that has reached the trials."""
        for run in self.dagster.runs(limit=10):
            if not run.finished and PID_TAG in run.tags and self._latest("training_features"):
                return int(run.tags[PID_TAG])
        return None

    def _webserver_answers(self) -> bool:
        from mlops_assets.ops.supervisor import answers

        return answers(f"{self.settings.dagster_url}/server_info")

    def _serving_again(self) -> bool:
        from mlops_assets.resources.endpoint import EndpointRefused, EndpointUnavailable

        try:
            return self._serving() is not None
        except (EndpointUnavailable, EndpointRefused):
            return False


def find_replica(settings: Settings, name: str) -> int | None:
    """The Ray worker whose title names the deployment, among this platform's processes."""
    for process in ours(settings):
        try:
            if f":{name}" in " ".join(process.cmdline()):
                return process.pid
        except psutil.NoSuchProcess:
            continue
    return None


def test_the_loop_survives_kill_9_in_every_phase(platform: tuple[Settings, dict[str, str]]) -> None:
    fresh, _ = platform
    settings = fresh.model_copy(update={"replay_clock": True, "canary_time_scale": 1 / 60})
    spec = find_specs(settings.models_dir)[0]
    world = settings.home / "demo" / "world"
    write_world(world, generate())
    data = shortened(load_demo_data(world, spec))
    prepare(settings)
    clock.move(settings, data.ordinary_days[0])
    report = Report(settings.home / "demo" / "report.json", Console(width=120))

    with Supervisor(settings) as supervisor:
        supervisor.wait_ready()
        story = SabotagedStory(settings, spec, data, supervisor, report)
        story.tell()

    assert set(story.killed) == {
        *("daemon", "run worker", "webserver", "serving"),
        *("CanaryProcess", "GuardProcess", "Ingress"),
    }
    assert all(step.verdict == "pass" for step in report.steps)
    registered = {version.version for version in Registry(settings).versions(spec.name)}
    answered_by = {record["version"] for record in logged(settings, spec.name)}
    assert answered_by <= registered


def shortened(data: DemoData) -> DemoData:
    """With the last three ordinary days alone: their quiet is the other test's subject."""
    first = data.ordinary_days[-3]
    return replace(data, ordinary=data.ordinary.filter(pl.col("event_timestamp") >= first))


def logged(settings: Settings, model: str) -> list[dict[str, int]]:
    """Every whole line of the prediction log."""
    records = []
    for segment in settings.model_home(model).predictions.glob("*.ndjson"):
        for line in segment.read_text().splitlines():
            if line.endswith("}"):
                records.append(json.loads(line))
    return records
