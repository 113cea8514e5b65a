"""Which processes are the platform's, and how all of them end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from dagster._grpc.client import DEFAULT_SENSOR_GRPC_TIMEOUT

from mlops_assets.ops.processes import (
    ENDPOINT,
    PortTaken,
    environment,
    ours,
    require_free_ports,
    services,
    stop_all,
    supervisor_pid,
)
from mlops_assets.ports import free_port
from mlops_assets.settings import MARK, Settings
from mlops_assets.storage import write_json
from mlops_assets.tokens import hash_of
from tests.serving.world import wait_until

pytestmark = pytest.mark.slow  # starts and kills processes

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True).wait()"


def start(settings: Settings, code: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A process of the platform that is up."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment(settings),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def test_a_process_is_found_by_its_home_and_so_are_its_descendants(settings: Settings) -> None:
    parent = start(settings, PARENT)
    found = {process.pid for process in ours(settings)}
    (child,) = psutil.Process(parent.pid).children()
    assert found == {parent.pid, child.pid}


def test_an_orphan_is_found_too(settings: Settings) -> None:
    parent = start(settings, PARENT)
    (child,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    assert [process.pid for process in ours(settings)] == [child.pid]


def test_another_home_and_the_caller_are_not_ours(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = settings.model_copy(update={"home": tmp_path_factory.mktemp("other")})
    theirs = start(other, SLEEP)
    try:
        assert list(ours(settings)) == []
        assert os.getpid() not in {process.pid for process in ours(other)}
    finally:
        stop_all(other)
    assert theirs.poll() is not None


def test_stop_all_asks_first_and_kills_what_does_not_listen(settings: Settings) -> None:
    polite, stubborn = start(settings, SLEEP), start(settings, STUBBORN)
    assert stop_all(settings, patience=0.5) == 2
    assert not psutil.pid_exists(polite.pid) or polite.poll() is not None
    assert list(ours(settings)) == []
    assert stubborn.poll() is not None
    assert stop_all(settings) == 0


def test_a_child_that_hides_where_it_belongs_is_stopped_with_its_parent(settings: Settings) -> None:
    hidden = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], env={{}}).wait()"
    parent = start(settings, hidden)
    (child,) = psutil.Process(parent.pid).children()
    assert [process.pid for process in ours(settings)] == [parent.pid]
    stop_all(settings, patience=0.5)
    assert not child.is_running()


def test_what_the_endpoint_started_is_left_to_it(settings: Settings, tmp_path: Path) -> None:
    child = f"import signal; signal.signal(signal.SIGTERM, lambda *_: open({str(tmp_path / 'told')!r}, 'w')); {SLEEP}"
    lines = [
        "import os, signal, subprocess, sys",
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])",
        "signal.signal(signal.SIGTERM, lambda *_: (child.kill(), os._exit(0)))",
        "child.wait()",
    ]
    endpoint = start(settings, "\n".join(lines), ENDPOINT)
    (started,) = psutil.Process(endpoint.pid).children()
    stop_all(settings)
    assert not started.is_running()
    assert not (tmp_path / "told").exists()


def test_the_supervisor_is_known_by_pid_and_birth(settings: Settings) -> None:
    assert supervisor_pid(settings) is None
    record = settings.home / "run" / "platform.json"
    me = psutil.Process()
    write_json(record, {"pid": me.pid, "birth": me.create_time()})
    assert supervisor_pid(settings) == me.pid
    write_json(record, {"pid": me.pid, "birth": me.create_time() - 100})  # the pid was taken by another
    assert supervisor_pid(settings) is None
    gone = start(settings, SLEEP)
    birth = psutil.Process(gone.pid).create_time()
    gone.kill()
    gone.wait()
    write_json(record, {"pid": gone.pid, "birth": birth})
    wait_until(lambda: supervisor_pid(settings) is None)


@pytest.mark.parametrize("name", ["dagster", "code", "mlflow", "serve"])
def test_a_port_that_is_taken_is_named_with_the_setting_that_moves_it(settings: Settings, name: str) -> None:
    require_free_ports(settings)
    port = getattr(settings, f"{name}_port")
    with socket.socket() as taken:
        taken.bind((settings.host, port))
        taken.listen()
        with pytest.raises(PortTaken, match=rf"port {port} on 127.0.0.1 is in use .*MLOPS_{name.upper()}_PORT"):
            require_free_ports(settings)


def test_on_a_ray_cluster_the_endpoint_that_goes_on_there_is_in_nobodys_way(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind((settings.host, settings.serve_port))
        taken.listen()
        require_free_ports(settings.model_copy(update={"ray_address": "head:6379"}))


def test_the_environment_gives_a_process_the_same_settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = settings.model_copy(
        update={
            "code_port": free_port(),
            "replay_clock": True,
            "canary_time_scale": 0.5,
            "ingress_replicas": 3,
            "rate_limit": 7.0,
            "mlflow_tracking_uri": "x://y",
            "mlflow_artifact_uri": "s3://bucket",
            "admin_token": hash_of("open sesame"),
            "log_retention_days": 30,
            "notify_urls": ["json://localhost", "mailto://x"],
        }
    )
    for name, value in environment(changed).items():
        monkeypatch.setenv(name, value)
    assert Settings(_env_file=None) == changed


def test_every_process_belongs_to_the_home_and_every_server_to_this_machine(settings: Settings) -> None:
    assert environment(settings)[MARK] == str(settings.home.resolve())
    parts = services(settings)
    assert [part.name for part in parts] == [
        *("serving", "mlflow", "dagster-code", "dagster-webserver", "dagster-daemon")
    ]
    assert all("127.0.0.1" in part.ready_url for part in parts if part.ready_url)


def test_a_tracking_server_elsewhere_is_used_and_not_started_again(settings: Settings) -> None:
    elsewhere = settings.model_copy(update={"mlflow_tracking_uri": "http://mlflow.internal:5000/"})
    assert "mlflow" in [service.name for service in services(settings)]
    assert "mlflow" not in [service.name for service in services(elsewhere)]
    assert elsewhere.mlflow_url == "http://mlflow.internal:5000"


ASKS = """
import time
from mlops_assets.resources.registry import Registry, RegistryUnavailable
from mlops_assets.settings import Settings

for _ in range(2):  # the first time, MLflow imports what it needs
    begun = time.monotonic()
    try:
        Registry(Settings()).by_alias("m", "production")
    except RegistryUnavailable:
        took = time.monotonic() - begun
print(took)
"""


def test_a_sensor_gives_a_tracking_server_up_that_is_away_before_dagster_gives_up_the_sensor(
    settings: Settings,
) -> None:
    away = settings.model_copy(update={"mlflow_tracking_uri": f"http://127.0.0.1:{free_port()}"})
    (code,) = (part for part in services(away) if part.name == "dagster-code")
    asked = subprocess.run(
        [sys.executable, "-c", ASKS],
        env={**environment(away), **code.environment},
        stdout=subprocess.PIPE,
        timeout=2 * DEFAULT_SENSOR_GRPC_TIMEOUT,
        check=True,
    )
    assert float(asked.stdout) < DEFAULT_SENSOR_GRPC_TIMEOUT / 2


def test_a_password_in_the_stores_address_stands_in_no_page_and_on_no_command_line(settings: Settings) -> None:
    server = settings.model_copy(update={"mlflow_tracking_uri": "http://ada:s3cret@mlflow.internal:5000"})
    assert server.mlflow_url == "http://mlflow.internal:5000"
    database = settings.model_copy(update={"mlflow_tracking_uri": "postgresql://ada:s3cret@db/mlflow"})
    assert "s3cret" not in repr(services(database))
    assert environment(database)["MLFLOW_BACKEND_STORE_URI"] == database.tracking_uri


def test_every_server_of_the_platform_binds_to_this_machine_alone(settings: Settings) -> None:
    commands = {service.name: service.command for service in services(settings)}
    told = {
        name: command[command.index(flag) + 1]
        for name, command in commands.items()
        for flag in ("-h", "--host")
        if flag in command
    }
    assert told == dict.fromkeys(("mlflow", "dagster-code", "dagster-webserver"), "127.0.0.1")
    assert set(commands) - set(told) == {
        "serving",
        "dagster-daemon",
    }  # the endpoint is asked itself; the other has no port
