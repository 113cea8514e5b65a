"""``python -m mlops_assets.serving``: serve every declared model until SIGTERM or SIGINT."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

import psutil

from mlops_assets.declarations import find_specs
from mlops_assets.serving import local_ray
from mlops_assets.settings import Settings, require_known_names
from mlops_assets.storage import write_json

LOOK_SECONDS = 1.0


class PortTaken(RuntimeError):
    """Somebody listens on the endpoint's port already."""


def main() -> int:
    """Serve; returns the exit status."""
    try:
        require_known_names()
        settings = Settings()
        find_specs(settings.models_dir)  # a broken YAML is told here, in one line, and not by a replica's traceback
        if not settings.ray_address:  # on a cluster, what was served before goes on until it is replaced
            local_ray.clear(settings)
            check_port(settings)
    except (ValueError, PortTaken, local_ray.FolderNotPrivate) as error:
        print(error, file=sys.stderr)
        return 2
    stopped = threading.Event()
    note = settings.home.resolve() / "run" / "serving.json"
    _stop_on_signal(stopped)
    try:
        _start(settings)
        _stop_on_signal(stopped)  # again: `ray.init` puts handlers of its own in their place, which end the process
        write_json(note, {"pid": os.getpid(), "url": settings.endpoint})
        print(f"ready {settings.endpoint}", flush=True)
        dead = _first_dead(local_ray.core(settings), stopped)
        if dead is not None:
            print(f"Ray's {dead} died, so that nothing else would be started again: all of it ends", file=sys.stderr)
    finally:
        note.unlink(missing_ok=True)
        local_ray.stop(settings)
    return 0 if dead is None else 1


def _first_dead(watched: list[psutil.Process], stopped: threading.Event) -> str | None:
    """Wait for a signal, or for one of these processes to end; returns its name."""
    names = {process.pid: process.name() for process in watched}
    while not stopped.wait(LOOK_SECONDS):
        for process in watched:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return names[process.pid]
    return None


def check_port(settings: Settings) -> None:
    """Fail early and clearly when the port is not free.

    Raises:
        PortTaken: then Serve would start and never become reachable.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.serve_port))
        except OSError as error:
            raise PortTaken(
                f"{settings.host}:{settings.serve_port} is not free ({error.strerror}); set MLOPS_SERVE_PORT"
            ) from error


def _stop_on_signal(stopped: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())


def _start(settings: Settings) -> None:
    local_ray.start(settings)
    from mlops_assets.serving.deployments import application

    local_ray.run(application(settings))


if __name__ == "__main__":
    sys.exit(main())
