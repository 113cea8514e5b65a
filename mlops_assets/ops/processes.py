"""What the platform consists of: the commands of its processes and how to tell that each is ready.

A process of ours carries ``MLOPS_PLATFORM=<home>`` in its environment, and so do its descendants:
that is how all of them are found again, also after the supervisor itself was killed.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from mlops_assets.resources.mlflow_store import SHORT_PATIENCE
from mlops_assets.settings import MARK, PROJECT_ROOT, Settings
from mlops_assets.storage import read_json

ENDPOINT = "mlops_assets.serving"


class PortTaken(RuntimeError):
    """A port that the platform needs is in use; the message names it and the setting that moves it."""


class AlreadyRunning(RuntimeError):
    """Another process supervises this home; the message names it."""


@dataclass(frozen=True)
class Service:
    """One supervised process."""

    name: str
    command: tuple[str, ...]
    ready_url: str | None  # answers 200 once ready; None: readiness shows elsewhere
    page: str | None  # where a person looks
    niceness: int = 0
    vital: bool = False  # the platform ends where it cannot live; without another part it goes on
    environment: Mapping[str, str] = field(default_factory=dict)  # what it alone is told


def services(settings: Settings) -> tuple[Service, ...]:
    """The platform's processes, in the order in which they start."""
    binaries = Path(sys.executable).parent
    workspace = str(settings.dagster_home / "workspace.yaml")
    return (
        Service(
            "serving",
            (sys.executable, "-m", ENDPOINT),
            f"{settings.endpoint}/health",
            settings.endpoint,
            vital=True,
        ),
        *_mlflow(settings),
        Service(
            "dagster-code",
            (
                *(sys.executable, "-m", "dagster", "api", "grpc", "--use-python-environment-entry-point"),
                *("-m", "mlops_assets.definitions", "--location-name", "mlops_assets", "-d", str(PROJECT_ROOT)),
                *("-h", settings.host, "-p", str(settings.code_port)),
            ),
            None,
            None,
            niceness=5,
            environment=SHORT_PATIENCE,  # sensors look again, and Dagster gives one up after a minute; runs have theirs
        ),
        Service(
            "dagster-webserver",
            (
                str(binaries / "dagster-webserver"),
                *("-w", workspace, "-h", settings.host, "-p", str(settings.dagster_port)),
            ),
            f"{settings.dagster_url}/server_info",
            settings.dagster_url,
            niceness=5,
        ),
        Service(
            "dagster-daemon",
            (str(binaries / "dagster-daemon"), "run", "-w", workspace),
            None,
            None,
            niceness=5,
        ),
    )


def _mlflow(settings: Settings) -> tuple[Service, ...]:
    """MLflow's server over our own store; none where the settings name a server that runs elsewhere."""
    if settings.tracking_uri.startswith("http"):
        return ()
    root = settings.mlflow_artifact_uri or str(settings.artifact_root)
    command = (
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
        *("--default-artifact-root", root, "--host", settings.host, "--port", str(settings.mlflow_port)),
    )
    return (Service("mlflow", command, f"{settings.mlflow_url}/health", settings.mlflow_url, niceness=5),)


def environment(settings: Settings) -> dict[str, str]:
    """The environment of every process of the platform."""
    inherited = {name: value for name, value in os.environ.items() if name != "MLOPS_TOKEN"}  # the caller's, not ours
    return {
        **inherited,
        **settings.as_environment(),
        MARK: str(settings.home.resolve()),
        "DAGSTER_HOME": str(settings.dagster_home),
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "MLFLOW_BACKEND_STORE_URI": settings.tracking_uri,  # not an option: all users of a machine see command lines
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven idle workers of 260 MB each, for jobs we do not have
        "FEAST_USAGE": "False",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore::DeprecationWarning,ignore::FutureWarning",
    }


def require_not_running(settings: Settings) -> None:
    """Raises AlreadyRunning if another process supervises this home: it must not be stopped for a second one."""
    pid = supervisor_pid(settings)
    if pid not in (None, os.getpid()):
        raise AlreadyRunning(
            f"the platform of {settings.home.resolve()} is running (process {pid}): `mlops status` shows it, "
            "`mlops down` stops it"
        )


def require_free_ports(settings: Settings) -> None:
    """Raises PortTaken if anything listens where the platform wants to; on a Ray cluster the endpoint is not here."""
    for name in ("serve_port", "mlflow_port", "dagster_port", "code_port"):
        if name == "serve_port" and settings.ray_address:
            continue
        port = getattr(settings, name)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError as error:
                raise PortTaken(
                    f"port {port} on {settings.host} is in use ({error.strerror}); "
                    f"set MLOPS_{name.upper()} to a free one, or stop what listens there (`mlops down` if it is ours)"
                ) from error


def ours(settings: Settings) -> Iterator[psutil.Process]:
    """Every living process of this platform's home but the caller: the supervisor, and whatever it started."""
    home = str(settings.home.resolve())
    supervisor = supervisor_pid(settings)
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid():
                continue
            if process.pid == supervisor or process.environ().get(MARK) == home:
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue  # gone meanwhile, or another user's: not ours to stop


def supervisor_pid(settings: Settings) -> int | None:
    """The process that supervises this home, if it lives; a reused pid is told apart by its birth time."""
    path = settings.home / "run" / "platform.json"
    if not path.exists():
        return None
    recorded = read_json(path)
    try:
        same = abs(psutil.Process(recorded["pid"]).create_time() - recorded["birth"]) < 1.0
    except psutil.NoSuchProcess:
        return None
    return int(recorded["pid"]) if same else None


def stop_all(settings: Settings, *, patience: float = 15.0) -> int:
    """End every process of this platform: asked first, killed after `patience` seconds. Returns how many."""
    found = list(ours(settings))
    # Ray's workers write their title over their environment: they are known by their parents, as long as these live.
    family = {*found, *(child for process in found for child in _descendants(process))}
    # The endpoint lets what it started answer first what is under way.
    told = set(found) - {child for process in found if _is_endpoint(process) for child in _descendants(process)}
    for process in told:
        _signal(process, "terminate")
    _, stubborn = psutil.wait_procs(family, timeout=patience)
    late = [*stubborn, *ours(settings)]
    for process in late:
        _signal(process, "kill")
    psutil.wait_procs(late, timeout=5)
    return len(found)


def _is_endpoint(process: psutil.Process) -> bool:
    try:
        return ENDPOINT in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in process.children(recursive=True) if child.pid != os.getpid()]
    except psutil.NoSuchProcess:
        return []


def _signal(process: psutil.Process, how: str) -> None:
    try:
        getattr(process, how)()
    except psutil.NoSuchProcess:
        return  # it ended by itself, which is what we want
