"""The demo as a user runs it: the closed loop on real servers, from first history to the rolled-back version."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from mlops_assets.ops.processes import ours
from mlops_assets.settings import Settings
from mlops_assets.storage import read_json
from tests.e2e.conftest import ROOT, start_demo

SUPPORT_DESK = ROOT.parent / "shared" / "data" / "support_desk"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def explain(environment: dict[str, str], prediction_id: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "mlops_assets.cli", "explain", prediction_id, "--json"]
    answer = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def a_prediction(settings: Settings) -> str:
    segment = sorted(settings.model_home("intent_classifier").predictions.glob("*.ndjson"))[0]
    return str(json.loads(segment.read_text().splitlines()[0])["prediction_id"])


@pytest.mark.alone
@pytest.mark.skipif(not SUPPORT_DESK.exists(), reason="the real data (../shared/data/support_desk) is not here")
def test_the_loop_closes_on_real_data(platform: tuple[Settings, dict[str, str]]) -> None:
    report = told(platform, "--data", str(SUPPORT_DESK))
    assert report["versions"][0]["f1"] >= 0.94
    assert report["quality"]["rows"] == 290
    assert report["quality"]["before"] < 0.5
    assert report["quality"]["after"] >= 0.72


@pytest.mark.alone
@pytest.mark.skipif(SUPPORT_DESK.exists(), reason="the loop is closed on the real data instead")
def test_the_loop_closes_on_the_embedded_world(platform: tuple[Settings, dict[str, str]]) -> None:
    report = told(platform)
    assert report["versions"][0]["f1"] >= 0.92
    assert report["quality"]["after"] > report["quality"]["before"] + 0.1


def told(platform: tuple[Settings, dict[str, str]], *data: str) -> dict[str, Any]:
    """The report of a whole demo, in which everything went as the story has it."""
    settings, environment = platform
    demo = start_demo(environment, *data, "--exit")
    assert demo.wait() == 0

    report: dict[str, Any] = read_json(settings.home / "demo" / "report.json")
    assert all(step["verdict"] == "pass" for step in report["steps"])
    shown = [Path(step["evidence"]) for step in report["steps"] if step["evidence"]]
    assert len(shown) >= 9
    assert all(path.exists() for path in shown)
    assert report["requests"]["failed"] == 0
    assert report["requests"]["answered"] == report["requests"]["sent"] > 3000
    first, *challengers, bad = report["versions"]
    assert challengers
    assert all("rollout succeeded" in challenger["verdict"] for challenger in challengers)
    assert "rollout failed" in bad["verdict"]
    assert "gate waived" in bad["verdict"]

    found = explain(environment, a_prediction(settings))
    assert found["version"]["version"] == first["version"]
    assert found["origin"]["snapshot_digest"]
    assert found["evidence: gate"]["decision"]["verdict"] == "pass"
    return report


def test_interrupting_the_demo_stops_everything_that_it_started(
    platform: tuple[Settings, dict[str, str]],
) -> None:
    settings, environment = platform
    demo = start_demo(environment)
    page = f"{settings.dagster_url}/server_info"
    wait_for(lambda: reachable(page), demo)
    started = list(ours(settings))
    assert started

    demo.send_signal(signal.SIGINT)
    assert demo.wait(timeout=120) == 130
    assert not list(ours(settings))
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in started)
    assert read_json(settings.home / "demo" / "report.json")["steps"]


def reachable(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False


def wait_for(condition: Any, demo: subprocess.Popen[bytes], seconds: int = 240) -> None:
    """Poll a real server's page until it answers; fails at once when the demo has ended."""
    for _ in range(seconds * 2):
        if condition():
            return
        try:
            demo.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"the demo ended with {demo.returncode}")
    raise AssertionError(f"nothing within {seconds} s")
