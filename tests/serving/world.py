"""A whole endpoint for tests: its own home, a real registry, `python -m mlops_assets.serving` on a free port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from mlops_assets.ports import free_port
from mlops_assets.resources.registry import Registry, Version, prepare
from mlops_assets.settings import Settings
from tests.serving import factories

# The latency limit is far off, so that a busy machine stops no canary; a test of slowness sets its own.
POLICY = {"weights": [0.3], "minutes": 0.05, "max_minutes": 3.0, "min_success": 0.9, "max_p99_ms": 5000.0}


def wait_until(condition: Callable[[], Any], seconds: float = 30.0, every: float = 0.1) -> Any:
    """Poll until the condition holds; its value. Fails the test when it never does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(every)
    raise AssertionError(f"did not come true within {seconds:g} s: {condition}")


def declare(models: Path, name: str, policy: Mapping[str, Any], **serving: Any) -> None:
    """Declare a model with this canary policy."""
    folder = models / name
    folder.mkdir(parents=True, exist_ok=True)
    attributes = {"name": name, "canary": dict(policy), "serving": serving}
    (folder / "defs.yaml").write_text(yaml.safe_dump({"type": "x", "attributes": attributes}))


def settings_in(home: Path, policy: Mapping[str, Any] = POLICY, **changes: Any) -> Settings:
    """Settings of a test home with one declared model and a quick canary policy."""
    models = home / "models_dir"
    declare(models, factories.MODEL, policy)
    fields = {
        "home": home,
        "models_dir": models,
        "serve_port": free_port(),
        "replay_clock": True,
        "ingress_replicas": 1,
    }
    return Settings(_env_file=None, **{**fields, **changes})


@dataclass
class Endpoint:
    """A served home."""

    settings: Settings
    process: subprocess.Popen[bytes] | None = None
    _names: int = field(default=0)

    @property
    def registry(self) -> Registry:
        return Registry(self.settings)

    @property
    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.settings.endpoint, timeout=30)

    @property
    def log(self) -> Path:
        """What the server prints."""
        return self.settings.home / "server.log"

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the server."""
        env = {**os.environ, **self.settings.as_environment()}
        command = [sys.executable, "-m", "mlops_assets.serving"]
        self.process = subprocess.Popen(command, env=env, stdout=self.log.open("ab"), stderr=subprocess.STDOUT)
        return self.process

    def start(self) -> None:
        """Start the server and wait for its `ready`."""
        seen = self.log.read_text().count("ready http") if self.log.exists() else 0
        process = self.launch()

        def is_ready() -> bool:
            assert process.poll() is None, self.log.read_text()
            return self.log.read_text().count("ready http") > seen

        try:
            wait_until(is_ready, 240)
        except AssertionError:
            self.stop()
            raise

    @contextmanager
    def running(self) -> Iterator[Endpoint]:
        """Started, and at the end stopped with every process of its own."""
        self.start()
        try:
            yield self
        finally:
            assert self.stop() == []

    def stop(self) -> list[int]:
        """SIGTERM; returns the processes that outlived it."""
        assert self.process is not None
        if self.process.poll() is not None:
            return []
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(180)
        _, alive = psutil.wait_procs(family, 10)
        return [process.pid for process in alive]

    def kill(self) -> None:
        """SIGKILL to the server and to every process that it started, at once."""
        assert self.process is not None
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for process in family:
            process.kill()
        self.process.wait()
        psutil.wait_procs(family, 10)

    def publish(self, artefact: Callable[[Path], str], alias: str, model: str = factories.MODEL) -> Version:
        """Export, register and give an alias."""
        self._names += 1
        folder = self.settings.home / "artefacts" / f"{self._names}-{time.time_ns()}"
        return factories.register(self.registry, folder, artefact(folder), alias=alias, model=model)

    def predict(self, customer: str | None = None, **more: Any) -> httpx.Response:
        body = {"text": "where is my parcel?", **({"customer_id": customer} if customer else {}), **more}
        return self.client.post("/predict", json=body)

    def health(self) -> dict[str, Any]:
        return self.client.get("/health").json()

    def rollout(self, model: str = factories.MODEL) -> dict[str, Any]:
        return self.client.get(f"/models/{model}/rollout").json()

    def predictions(self, model: str = factories.MODEL) -> list[dict[str, Any]]:
        """What the log holds."""
        segments = sorted(self.settings.model_home(model).predictions.glob("*.ndjson"))
        return [json.loads(line) for segment in segments for line in segment.read_text().splitlines()]

    def admin(self, route: str, body: dict[str, Any]) -> httpx.Response:
        token = self.settings.admin_secret()
        return self.client.post(route, json=body, headers={"Authorization": f"Bearer {token}"})

    def pids(self, deployment: str) -> list[int]:
        """Processes of a deployment's replicas."""
        assert self.process is not None
        family = psutil.Process(self.process.pid).children(recursive=True)
        return [process.pid for process in family if deployment in title(process)]


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it is just ending
        return ""


def new_endpoint(home: Path, **changes: Any) -> Endpoint:
    """An endpoint with an empty, prepared registry and a set clock; not started."""
    settings = settings_in(home, **changes)
    prepare(settings)
    return Endpoint(settings)
