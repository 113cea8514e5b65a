"""Forks run workers from a process that has imported the libraries already.

A worker spends most of a short run on imports: six to ten seconds of a processor on a slow machine, and none of it
when it is forked. Only libraries are imported ahead: a worker reads the project's own code when it starts, so that a
change of it counts from the next run on. Nor are libraries that start threads of their own (Polars, ONNX Runtime),
which a fork would leave behind, or which only the weekly training needs (torch). The threads of OpenBLAS and of
Arrow's allocator are there: both libraries register what keeps them whole in a fork (`pthread_atfork`).
"""

from __future__ import annotations

import gc
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from mlops_assets.imports import collect_less_often, without

PRELOADED = (
    "dagster._cli",
    "matplotlib.figure",
    "mlflow.store.tracking.sqlalchemy_store",
    "scipy.stats",
)
READY_SECONDS = 120.0
FORKED_SECONDS = 30.0


class ForkServer:
    """The caller's end. The server ends with the caller; the workers do not."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._line: Connection

    def fork(self, arguments: Sequence[str], niceness: int) -> int:
        """Run `python -m dagster ARGUMENTS` in a new worker, a session of its own; returns its pid.

        The first call starts the server, and waits for its imports; so does the one after the server was killed.

        Raises:
            EOFError, OSError: the server was killed meanwhile; whether it had forked is not known.
            TimeoutError: the server hung, and was killed; the next call starts another.
        """
        with self._turn:
            if self._server is None or self._server.poll() is not None:
                self._start()
            self._line.send((arguments, niceness))
            return self._hear(FORKED_SECONDS)

    def _start(self) -> None:
        """Only a server that is ready is asked: what it reads later might be from a caller that died meanwhile."""
        self._line, theirs = Pipe()
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        self._server = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self._hear(READY_SECONDS)

    def _hear(self, seconds: float) -> int:
        """The next pid that the server says: its own when it is ready, then a worker's each time."""
        if not self._line.poll(seconds):
            assert self._server is not None
            self._server.kill()
            self._server.wait()
            raise TimeoutError(f"the server that run workers are forked from said nothing for {seconds:g} s")
        return int(self._line.recv())


def _serve(line: Connection) -> list[str] | None:
    """Fork when asked to: returns a worker's arguments in the worker; None in the server, once its caller is gone."""
    line.send(os.getpid())
    while True:
        try:
            arguments, niceness = line.recv()
        except EOFError:
            return None
        pid = os.fork()
        if pid == 0:
            line.close()
            os.setsid()
            os.nice(niceness)
            return list(arguments)
        try:
            line.send(pid)
        except OSError:  # nobody would know of this worker, and its run would be started again beside it
            os.kill(pid, signal.SIGKILL)
            return None


def main() -> None:
    """The server's life, and in each fork of it a worker's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with its caller, which decides what Ctrl-C means
    collect_less_often()
    with without("polars"):  # MLflow would import it
        for name in PRELOADED:
            import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the workers
    gc.collect()
    gc.freeze()  # a worker's collections leave the shared pages alone
    arguments = _serve(Connection(int(sys.argv[1])))
    if arguments is None:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else a worker's own children would seem to end well, all of them
    sys.argv = ["dagster", *arguments]
    runpy.run_module("dagster", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
