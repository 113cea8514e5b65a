"""A server under test with all its processes: start, wait until it answers, weigh, stop."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

START_SECONDS, STOP_SECONDS = 120.0, 60.0


class DidNotStart(RuntimeError):
    """The server ended, or never became ready; the message holds the end of its output."""


@dataclass(frozen=True)
class Running:
    """A started server; `log` has all that it printed."""

    process: subprocess.Popen[bytes]
    log: Path

    def cpu_seconds(self) -> dict[int, float]:
        """User and system time by process id, of every process of the server that lives now."""
        return {process.pid: sum(process.cpu_times()[:2]) for process in self._living()}

    def pss_mb(self) -> float:
        """Proportional set size of all its processes, in megabytes: shared pages count once."""
        return sum(process.memory_full_info().pss for process in self._living()) / 1e6

    def stop(self) -> None:
        """SIGTERM, then patience; what is left of its processes after that is killed."""
        family = self._living()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        _, alive = psutil.wait_procs(family, timeout=2)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=5)
        self.process.wait(5)

    def _living(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def start(command: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path) -> Running:
    """Start a server in a process group of its own."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env={**os.environ, **env}, cwd=cwd, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    return Running(process, log)


def wait_ready(server: Running, is_ready: Callable[[], bool]) -> float:
    """Seconds from now until it is ready.

    Raises:
        DidNotStart: it is not, after two minutes, or has ended.
    """
    began = time.perf_counter()
    while time.perf_counter() - began < START_SECONDS:
        if server.process.poll() is not None:
            break
        if is_ready():
            return time.perf_counter() - began
        time.sleep(0.05)
    raise DidNotStart("\n".join(server.log.read_text(errors="replace").splitlines()[-20:]))
