"""Starts the Ray that serving runs on: a small local one, or the cluster that the settings name.

Everything that Ray and MLflow read from the environment is set here, before they are imported: what makes Serve
fast, and the settings for the processes that it will start.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from mlops_assets.resources.mlflow_store import SHORT_PATIENCE
from mlops_assets.serving import haproxy, shortcut
from mlops_assets.serving.worker import import_serve
from mlops_assets.settings import Settings

DRAIN_SECONDS = 12.0  # more than a replica's `graceful_shutdown_timeout_s`
OBJECT_STORE_BYTES = 200 * 1024 * 1024
NAMESPACE = "mlops-assets"
APPLICATION = "mlops-assets"

# Measured for one replica on two cores: a second event loop and unbuffered request logs cost more than a prediction.
SWITCHES = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    # Ten times a second each, by default, and nothing here changes so fast.
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.25",
    # To share a few short texts among threads takes as long as to read them.
    "TOKENIZERS_PARALLELISM": "false",
    # A worker that waits for tasks, of which there are none, and heaps that keep what a start took: 70 MB together.
    "RAY_prestart_worker_first_driver": "0",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    # Ray's default of 15 puts the endpoint behind the training runs.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    **SHORT_PATIENCE,  # the guard asks the registry every second
}
# What `ray.init` has no option for. Two processes of Ray's that have nothing to do here: they print a worker's lines on
# the driver's terminal and add nodes to a cluster. And an agent's port, which is the same for every Ray of a machine:
# the second waits three seconds for it before it takes another.
PARAMETERS = {"include_log_monitor": False, "no_monitor": True, "dashboard_agent_listen_port": 0}
# What only a Ray of our own is told.
ALONE = {
    # Ray listens on every address for the nodes that may join it. One of which it is said that no other can (as is the
    # rule on other systems than this) is at home on the loopback, with all but one port of each replica.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Nobody reads Ray's own metrics, task events and reports: a sixth of what it takes when idle.
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
    "RAY_task_events_report_interval_ms": "0",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
}


class FolderNotPrivate(RuntimeError):
    """Others may write where Ray keeps its sockets: whoever swaps one of them answers in the endpoint's place."""


def start(settings: Settings) -> None:
    """Start (or join) Ray, and have Serve started on it; returns when an application can be run."""
    switches = SWITCHES | shortcut.SWITCH | haproxy.environment(temporary_folder(settings), settings)
    if not settings.ray_address:
        switches |= ALONE
    inherited = settings.as_environment() | {name: os.environ.get(name, value) for name, value in switches.items()}
    os.environ.update(inherited)
    import_serve()
    import ray

    logs = settings.home.resolve() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    in_workers: dict[str, Any] = {"worker_process_setup_hook": f"{import_serve.__module__}.{import_serve.__name__}"}
    common: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.WARNING}
    if settings.ray_address:
        ray.init(address=settings.ray_address, runtime_env=in_workers | {"env_vars": inherited}, **common)
    else:
        folder = private_folder(settings) / "ray"
        with _parameters():
            ray.init(
                address="local",  # whatever Ray may still be there, or be named by the environment
                num_cpus=2,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(folder),
                runtime_env=in_workers,
                **common,
            )
        _link(logs / "ray", folder / "session_latest" / "logs")
    _start_serve(settings)


def _start_serve(settings: Settings) -> None:
    """Have Serve's controller started, which starts an HTTP server on every node."""
    from ray import serve
    from ray.serve._private.default_impl import get_controller_impl
    from ray.serve.config import HTTPOptions
    from ray.serve.schema import LoggingConfig

    http = HTTPOptions(host=settings.host, port=settings.serve_port)
    logging_config = LoggingConfig(enable_access_log=False, log_level="WARNING")
    if settings.ray_address:  # where there may be one that serves
        serve.start(http_options=http, logging_config=logging_config)
    else:  # `serve.start` would wait for the HTTP server, beside which the replicas can start
        get_controller_impl().remote(http_options=http, global_logging_config=logging_config)


def run(application: Any) -> None:
    """Run the application; returns when every replica and every HTTP server is up.

    Raises:
        RuntimeError: one of them could not be started; the message says why.
    """
    import ray
    from ray import serve
    from ray.serve._private.constants import HTTP_PROXY_TIMEOUT
    from ray.serve.context import _get_global_client

    serve.run(application, name=APPLICATION, route_prefix="/")
    # Serve takes an HTTP server that died for one that is up.
    servers = ray.get(_get_global_client()._controller.get_proxies.remote())
    ray.get([server.ready.remote() for server in servers.values()], timeout=HTTP_PROXY_TIMEOUT)


def core(settings: Settings) -> list[psutil.Process]:
    """The two processes of a Ray of our own without which nothing that dies is started again; none on a cluster."""
    if settings.ray_address:
        return []
    return [child for child in psutil.Process().children() if child.name() in ("gcs_server", "raylet")]


def clear(settings: Settings) -> None:
    """End what a Ray of this home that was killed left running, as its HAProxy would keep the endpoint's port.

    Of the files that the Rays of this home left, only those of the newest stay: its logs say why it ended.

    Raises:
        FolderNotPrivate: they lie where others may write.
    """
    folder = private_folder(settings)
    _end(_started(settings))
    for each_start in ("ray/session_[0-9]*", "ha/*"):
        for old in sorted(folder.glob(each_start), key=lambda left: left.stat().st_mtime)[:-1]:
            shutil.rmtree(old)


def stop(settings: Settings) -> None:
    """Stop the application, when it has answered what is under way, and the local Ray with all that it started."""
    import ray
    from ray import serve

    try:
        if ray.is_initialized():
            _drain()
    finally:
        if settings.ray_address:
            serve.shutdown()
        started = [] if settings.ray_address else _started(settings)
        ray.shutdown()
        _, alive = psutil.wait_procs(started, timeout=5)
        _end(alive)  # Ray's agents at times outlive their raylet


def _drain() -> None:
    """Take the replicas away, each when it has answered; `serve.shutdown` would end the proxies before them.

    In a thread, because Serve asks its controller without a deadline, and that may be dead.
    """
    from ray import serve
    from ray.serve.exceptions import RayServeException

    def delete() -> None:
        with suppress(RayServeException):  # Serve did not come up
            serve.delete(APPLICATION)

    deleting = threading.Thread(target=delete, daemon=True)
    deleting.start()
    deleting.join(DRAIN_SECONDS)


def _started(settings: Settings) -> list[psutil.Process]:
    """Whoever writes to files in our Ray's folder; workers hide their environment and may have lost their parent."""
    folder = f"{temporary_folder(settings)}/"
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it ended meanwhile, or is another user's
            files = [file for file in process.open_files() if file.path.startswith(folder) and file.mode != "r"]
            if files and process.pid != os.getpid():
                found.append(process)
    return found


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def temporary_folder(settings: Settings) -> Path:
    """Where the local Ray and HAProxy keep sockets and logs: short, as a socket's path may have 107 bytes."""
    digest = hashlib.sha256(str(settings.home.resolve()).encode()).hexdigest()[:8]
    return Path("/tmp") / f"mlops-{digest}"


def private_folder(settings: Settings) -> Path:
    """The temporary folder, made on first use: what is in it, Ray opens to everybody.

    Raises:
        FolderNotPrivate: it belongs to somebody else, or somebody else may look into it. Its name can be foreseen.
    """
    folder = temporary_folder(settings)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise FolderNotPrivate(f"{folder} must be a folder that belongs to this user, with mode 700; remove it")
    return folder


@contextmanager
def _parameters() -> Iterator[None]:
    """Let `ray.init` use `PARAMETERS`, and start no process that only counts usage where there is no dashboard."""
    from ray._private import node, parameter

    class Parameters(parameter.RayParams):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given, **PARAMETERS)

    kept = parameter.RayParams, node.Node.start_api_server
    parameter.RayParams, node.Node.start_api_server = Parameters, lambda *_, **__: None
    try:
        yield
    finally:
        parameter.RayParams, node.Node.start_api_server = kept


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)
