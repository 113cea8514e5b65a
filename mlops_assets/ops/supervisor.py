"""Starts the platform's processes, starts again those that die, and stops all of them together.

Each process has a log file of its own. One that dies again and again is given up with the end of its log: if it is
vital, all of them end; another one is tried again after pauses, and the rest goes on without it.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from mlops_assets.serving.trouble import Trouble
from mlops_assets.settings import Settings
from mlops_assets.storage import write_json

MAX_DEATHS = 5  # in a row, each within SHORT_LIFE seconds of its start
SHORT_LIFE = 30.0
PAUSE = 30.0  # before another try of what was given up; twice as long from try to try,
MAX_DOUBLINGS = 5  # and 16 minutes in the end
LOOK_EVERY = 0.5

log = logging.getLogger(__name__)


class PlatformFailed(RuntimeError):
    """A process could not be started or kept alive; the message carries the end of its log."""


@dataclass
class _Supervised:
    """A process, and what has become of it."""

    service: Service
    process: subprocess.Popen[bytes]
    trouble: Trouble  # with starting it again
    started: float = field(default_factory=time.monotonic)
    restarts: int = 0
    deaths: int = 0  # in a row, each after a short life
    again_at: float = math.inf  # when it is to be started again; inf: it lives
    given_up: str = ""  # why, while it waits for another try

    def bury(self, code: int, log: Path) -> None:
        """Count a death, and say when it is to be started again."""
        now = time.monotonic()
        self.deaths = self.deaths + 1 if now - self.started < SHORT_LIFE else 1
        self.again_at = now
        if self.deaths >= MAX_DEATHS:
            self.again_at += PAUSE * 2 ** min(self.deaths - MAX_DEATHS, MAX_DOUBLINGS)
            self.given_up = f"{self.service.name} died {self.deaths} times (last exit code {code}):\n{tail(log)}"

    def revive(self, process: subprocess.Popen[bytes]) -> None:
        """It runs again, as this process."""
        self.process, self.started, self.restarts = process, time.monotonic(), self.restarts + 1
        self.again_at, self.given_up = math.inf, ""


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
        self._recorded: dict[str, Any] = {}
        self._trouble = Trouble("what runs cannot be recorded")
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
                trouble = Trouble(f"{service.name} cannot be started again")
                self._supervised[service.name] = _Supervised(service, self._start(service), trouble)
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
            for entry in self._supervised.values():
                if entry.given_up:
                    raise PlatformFailed(entry.given_up)
            if time.monotonic() > deadline:
                name = waiting[0].name
                raise PlatformFailed(f"{name} did not answer within {timeout:.0f} s:\n{tail(self._log_of(name))}")
            waiting = [s for s in waiting if not answers(s.ready_url)]
            if waiting:
                self._stopping.wait(LOOK_EVERY)

    def require_alive(self) -> None:
        """Raises PlatformFailed if a vital process was given up, or nobody watches any more."""
        if self._failure:
            raise PlatformFailed(self._failure)
        if not self._watcher.is_alive() and not self._stopping.is_set():
            raise PlatformFailed(
                "the supervisor's watcher died, so that nothing would be started again: all of it ends"
            )

    def pid(self, name: str) -> int:
        """The process id that a service has now."""
        return self._supervised[name].process.pid

    def wait(self) -> None:
        """Block until stopped (by a signal handler).

        Raises:
            PlatformFailed: as `require_alive`.
        """
        while not self._stopping.wait(LOOK_EVERY):
            self.require_alive()
        self.require_alive()

    def _start(self, service: Service) -> subprocess.Popen[bytes]:
        with self._log_of(service.name).open("ab") as log:
            return subprocess.Popen(
                service.command,
                env={**self._environment, **service.environment},
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
                with _told(entry.trouble):
                    self._look_at(entry)
            with _told(self._trouble):
                self._record()

    def _look_at(self, entry: _Supervised) -> None:
        code = entry.process.poll()
        if code is None or self._stopping.is_set():
            return
        if entry.again_at == math.inf:
            entry.bury(code, self._log_of(entry.service.name))
            self._judge(entry)
        if time.monotonic() >= entry.again_at:
            entry.revive(self._start(entry.service))

    def _judge(self, entry: _Supervised) -> None:
        """End the platform where a vital part was given up; tell of another one when that is new."""
        if entry.given_up and entry.service.vital:
            self._failure = entry.given_up
            self._stopping.set()
        elif entry.deaths == MAX_DEATHS:
            log.error("%s\nThe rest goes on, and it is tried again after pauses.", entry.given_up)

    def _record(self) -> None:
        processes = {
            name: {"pid": entry.process.pid, "restarts": entry.restarts, "given_up": bool(entry.given_up)}
            for name, entry in self._supervised.items()
        }
        document = {"pid": os.getpid(), "birth": psutil.Process().create_time(), "processes": processes}
        if document != self._recorded:
            write_json(self._settings.home / "run" / "platform.json", document)
            self._recorded = document


@contextmanager
def _told(trouble: Trouble) -> Iterator[None]:
    """The machine's errors (a full disk, no memory) are logged once, and the next look tries again."""
    try:
        yield
    except OSError as error:
        trouble.met(error)
    else:
        trouble.over()


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
