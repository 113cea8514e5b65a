"""Starts the platform's processes, starts again those that die, and stops all of them together.

Each process has a log file of its own; a process that dies again and again is given up with the end
of its log, rather than restarted for ever.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from mlops_assets.ops.processes import (
    Service,
    environment,
    require_free_ports,
    require_not_running,
    services,
    stop_all,
)
from mlops_assets.settings import Settings
from mlops_assets.storage import write_json

MAX_DEATHS = 5  # within DEATH_WINDOW seconds
DEATH_WINDOW = 120.0
LOOK_EVERY = 0.5


class PlatformFailed(RuntimeError):
    """A process could not be started or kept alive; the message carries the end of its log."""


@dataclass
class _Supervised:
    service: Service
    process: subprocess.Popen[bytes]
    deaths: deque[float] = field(default_factory=deque)


class Supervisor:
    """The platform (or other `parts`) as one object: a context manager that leaves no process behind.

    >>> with Supervisor(Settings()) as platform:        # doctest: +SKIP
    ...     platform.wait_ready()
    """

    def __init__(self, settings: Settings, parts: Sequence[Service] | None = None) -> None:
        self._settings = settings
        self._parts = tuple(services(settings) if parts is None else parts)
        self._logs = settings.home.resolve() / "logs"
        self._environment = environment(settings)
        self._supervised: dict[str, _Supervised] = {}
        self._stopping = threading.Event()
        self._failure: str | None = None
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Supervisor:
        """Start every process.

        Raises:
            AlreadyRunning: another process supervises this home.
            PortTaken: something else listens where one of them wants to.
        """
        require_not_running(self._settings)
        stop_all(self._settings)  # what a killed supervisor left behind
        require_free_ports(self._settings)
        try:
            for service in self._parts:
                self._supervised[service.name] = _Supervised(service, self._start(service))
            self._record()
        except BaseException:
            self.stop()
            raise
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop every process, run workers and Ray included; a second Ctrl-C waits for it too."""
        with _uninterrupted():
            self._stopping.set()
            if self._watcher.is_alive():
                self._watcher.join()
            stop_all(self._settings)
            (self._settings.home / "run" / "platform.json").unlink(missing_ok=True)

    def wait_ready(self, timeout: float = 180.0) -> None:
        """Return once every process answers.

        Raises:
            PlatformFailed: one was given up, or `timeout` seconds passed.
        """
        deadline = time.monotonic() + timeout
        waiting = [s for s in self._parts if s.ready_url]
        while waiting:
            self.require_alive()
            if time.monotonic() > deadline:
                name = waiting[0].name
                raise PlatformFailed(f"{name} did not answer within {timeout:.0f} s:\n{tail(self._log_of(name))}")
            waiting = [s for s in waiting if not answers(s.ready_url)]
            if waiting:
                self._stopping.wait(LOOK_EVERY)

    def require_alive(self) -> None:
        """Raises PlatformFailed if a process was given up."""
        if self._failure:
            raise PlatformFailed(self._failure)

    def pid(self, name: str) -> int:
        """The process id that a service has now."""
        return self._supervised[name].process.pid

    def wait(self) -> None:
        """Block until stopped (by a signal handler) or until a process is given up."""
        while not self._stopping.wait(LOOK_EVERY):
            pass
        self.require_alive()

    def _start(self, service: Service) -> subprocess.Popen[bytes]:
        with self._log_of(service.name).open("ab") as log:
            return subprocess.Popen(
                service.command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop them in order
                preexec_fn=lambda: os.nice(service.niceness),
            )

    def _log_of(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_EVERY):
            for entry in self._supervised.values():
                code = entry.process.poll()
                if code is not None and not self._stopping.is_set():
                    self._revive(entry, code)

    def _revive(self, entry: _Supervised, code: int) -> None:
        now = time.monotonic()
        entry.deaths.append(now)
        while entry.deaths[0] < now - DEATH_WINDOW:
            entry.deaths.popleft()
        if len(entry.deaths) >= MAX_DEATHS:
            name = entry.service.name
            self._failure = f"{name} died {MAX_DEATHS} times (last exit code {code}):\n{tail(self._log_of(name))}"
            self._stopping.set()
            return
        entry.process = self._start(entry.service)
        self._record()

    def _record(self) -> None:
        write_json(
            self._settings.home / "run" / "platform.json",
            {
                "pid": os.getpid(),
                "birth": psutil.Process().create_time(),
                "processes": {
                    name: {"pid": entry.process.pid, "restarts": len(entry.deaths)}
                    for name, entry in self._supervised.items()
                },
            },
        )


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Leave signals to stop alone meanwhile; they only ever reach the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {which: signal.signal(which, signal.SIG_IGN) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


def answers(url: str | None) -> bool:
    """Whether a GET of `url` is answered with success."""
    try:
        return url is not None and httpx.get(url, timeout=2.0).is_success
    except httpx.HTTPError:
        return False


def tail(log: Path, lines: int = 15) -> str:
    """The end of a service's log, and where the rest is."""
    if not log.exists():
        return f"(no log at {log})"
    end = log.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join([*end, f"(whole log: {log})"])
