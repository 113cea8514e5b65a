"""The supervisor keeps its processes alive, gives up those that cannot live, and leaves none behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

import psutil
import pytest

from mlops_assets.ops import supervisor
from mlops_assets.ops.processes import PortTaken, Service, environment, ours, supervisor_pid
from mlops_assets.ops.supervisor import MAX_DEATHS, PlatformFailed, Supervisor, tail
from mlops_assets.settings import Settings
from mlops_assets.storage import read_json
from tests.ops.conftest import python
from tests.serving.full_disk import no_room_in
from tests.serving.world import wait_until

pytestmark = pytest.mark.slow  # starts and kills processes

SLEEP = python("sleeper", "import time; time.sleep(60)")


def web(settings: Settings) -> Service:
    """A service that answers on the endpoint's port."""
    code = f"import http.server as h; h.test(h.SimpleHTTPRequestHandler, port={settings.serve_port}, bind='127.0.0.1')"
    return python("web", code, ready_url=settings.endpoint)


def recorded(settings: Settings, name: str) -> dict[str, Any]:
    """What the supervisor wrote of a part."""
    part: dict[str, Any] = read_json(settings.home / "run" / "platform.json")["processes"][name]
    return part


def test_it_is_ready_once_every_part_answers_and_stops_all_of_them(settings: Settings) -> None:
    with Supervisor(settings, [web(settings), SLEEP]) as platform:
        platform.wait_ready(30)
        pids = {platform.pid("web"), platform.pid("sleeper")}
        assert {process.pid for process in ours(settings)} == pids
        assert supervisor_pid(settings) == os.getpid()
    assert list(ours(settings)) == []
    assert not (settings.home / "run" / "platform.json").exists()


def test_a_part_has_the_environment_of_the_platform_and_what_it_alone_is_told(settings: Settings) -> None:
    with Supervisor(settings, [replace(SLEEP, environment={"ALONE": "1"})]) as platform:
        wait_until(lambda: "ALONE" in psutil.Process(platform.pid("sleeper")).environ())
        has = psutil.Process(platform.pid("sleeper")).environ()
        assert has.items() >= {**environment(settings), "ALONE": "1"}.items()


def test_a_part_that_is_killed_is_started_again(settings: Settings) -> None:
    with Supervisor(settings, [SLEEP]) as platform:
        first = platform.pid("sleeper")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: platform.pid("sleeper") != first)
        assert psutil.pid_exists(platform.pid("sleeper"))
        wait_until(lambda: recorded(settings, "sleeper")["restarts"] == 1)
        assert recorded(settings, "sleeper")["pid"] == platform.pid("sleeper")
        platform.require_alive()


BROKEN = python("broken", "raise SystemExit('no such database')")


def test_the_platform_ends_with_the_log_of_a_vital_part_that_cannot_live(settings: Settings) -> None:
    with (
        Supervisor(settings, [replace(BROKEN, vital=True), SLEEP]) as platform,
        pytest.raises(PlatformFailed, match=f"broken died {MAX_DEATHS} times") as failed,
    ):
        platform.wait()
    assert "no such database" in str(failed.value)
    assert "broken.log" in str(failed.value)
    assert list(ours(settings)) == []


def test_without_another_part_the_rest_goes_on_and_it_is_tried_again_after_pauses(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "PAUSE", 1.0)
    with Supervisor(settings, [SLEEP, BROKEN]) as platform:
        first = platform.pid("sleeper")
        wait_until(lambda: recorded(settings, "broken")["given_up"])
        wait_until(lambda: recorded(settings, "broken")["restarts"] > MAX_DEATHS)
        platform.require_alive()
        assert platform.pid("sleeper") == first
        assert recorded(settings, "sleeper")["given_up"] is False
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: platform.pid("sleeper") != first)
    (said,) = caplog.messages
    assert f"broken died {MAX_DEATHS} times (last exit code 1):\nno such database" in said


def test_a_platform_of_which_a_part_cannot_live_does_not_become_ready(settings: Settings) -> None:
    with (
        Supervisor(settings, [replace(web(settings), command=BROKEN.command)]) as platform,
        pytest.raises(PlatformFailed, match=f"web died {MAX_DEATHS} times"),
    ):
        platform.wait_ready(30)


@pytest.mark.parametrize("full", ["run", "logs"])
def test_a_full_disk_ends_no_watch(settings: Settings, full: str, caplog: pytest.LogCaptureFixture) -> None:
    with Supervisor(settings, [SLEEP]) as platform:
        first = platform.pid("sleeper")
        with no_room_in(settings.home / full):
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: caplog.messages)
            platform.require_alive()
        wait_until(lambda: recorded(settings, "sleeper")["pid"] != first)
        assert recorded(settings, "sleeper") == {"pid": platform.pid("sleeper"), "restarts": 1, "given_up": False}
    begun, over = caplog.messages
    assert over.startswith("it is over: ")
    assert begun.startswith(
        {"run": "what runs cannot be recorded: ", "logs": "sleeper cannot be started again: "}[full]
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_watcher_that_is_gone(settings: Settings) -> None:
    with Supervisor(settings, [SLEEP]) as platform:
        del platform._supervised["sleeper"].process  # stands for any fault of ours
        with pytest.raises(PlatformFailed, match="nothing would be started again"):
            platform.wait()
    assert list(ours(settings)) == []


def test_waiting_for_a_part_that_never_answers_ends_with_its_log(settings: Settings) -> None:
    mute = python("mute", "import time; print('loading', flush=True); time.sleep(60)", ready_url=settings.endpoint)
    with (
        Supervisor(settings, [mute]) as platform,
        pytest.raises(PlatformFailed, match="mute did not answer within 1 s"),
    ):
        platform.wait_ready(1)


STOPS_SLOWLY = """
import signal, sys, time
def stop(*_):
    print("asked to stop", flush=True)
    time.sleep(3)
    sys.exit()
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
time.sleep(60)
"""
SUPERVISES = f"""
import signal, sys
from mlops_assets.ops.processes import Service
from mlops_assets.ops.supervisor import Supervisor
from mlops_assets.settings import Settings
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored from birth where the tests run in the background
with Supervisor(Settings(), [Service("slow", (sys.executable, "-c", {STOPS_SLOWLY!r}), None, None)]) as platform:
    platform.wait()
"""


def test_a_second_interruption_waits_until_all_have_stopped(settings: Settings) -> None:
    log = settings.home / "logs" / "slow.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    script = subprocess.Popen([sys.executable, "-c", SUPERVISES], env=environment(settings))
    wait_until(lambda: log.exists() and "up" in log.read_text())
    part = read_json(settings.home / "run" / "platform.json")["processes"]["slow"]["pid"]
    script.send_signal(signal.SIGINT)
    wait_until(lambda: "asked to stop" in log.read_text())
    script.send_signal(signal.SIGINT)
    script.wait(30)
    assert not psutil.pid_exists(part)


def test_what_a_killed_supervisor_left_behind_is_stopped_first(settings: Settings) -> None:
    with Supervisor(settings, [SLEEP]) as killed:
        left = killed.pid("sleeper")
        killed._stopping.set()  # its watcher is gone, as after kill -9; the part lives on
        with Supervisor(settings, [SLEEP]) as platform:
            assert {process.pid for process in ours(settings)} == {platform.pid("sleeper")}
            assert platform.pid("sleeper") != left


def test_nothing_is_started_where_a_port_is_taken(settings: Settings) -> None:
    with Supervisor(settings, [web(settings)]) as platform:
        platform.wait_ready(30)
        other = settings.model_copy(update={"home": settings.home / "other"})
        with pytest.raises(PortTaken), Supervisor(other, [SLEEP]):
            pass
        assert list(ours(other)) == []


def test_a_part_that_cannot_be_started_takes_the_others_with_it(settings: Settings) -> None:
    with pytest.raises(FileNotFoundError), Supervisor(settings, [SLEEP, Service("none", ("/no/such",), None, None)]):
        pass
    assert list(ours(settings)) == []


def test_the_end_of_a_log_says_where_the_rest_is(settings: Settings) -> None:
    log = settings.home / "logs" / "web.log"
    log.write_text("\n".join(f"line {n}" for n in range(40)))
    assert tail(log, 2) == f"line 38\nline 39\n(whole log: {log})"
    assert "no log at" in tail(settings.home / "logs" / "none.log")
