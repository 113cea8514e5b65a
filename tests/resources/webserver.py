"""A real Dagster webserver over the project's code location, on an instance of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from mlops_assets.settings import PROJECT_ROOT, Settings
from tests.serving.world import wait_until


@contextmanager
def webserver(settings: Settings) -> Iterator[None]:
    """Serve the instance under `settings.home` at `settings.dagster_url` while the block runs."""
    command = [
        *(sys.executable, "-m", "dagster_webserver", "-w", str(PROJECT_ROOT / "workspace.yaml")),
        *("-h", settings.host, "-p", str(settings.dagster_port)),
    ]
    env = {**os.environ, "DAGSTER_HOME": str(settings.home), "MLOPS_HOME": str(settings.home)}
    server = subprocess.Popen(command, env=env, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(f"{settings.dagster_url}/server_info"), 120)
        yield
    finally:
        server.terminate()
        server.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False
