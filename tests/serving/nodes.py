"""Two Ray nodes on this machine, started as an operator starts them; each gets an HAProxy on a port of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mlops_assets.ports import free_port
from tests.serving.world import title, wait_until

DIRECT_PORTS = range(30000, 31000)  # where Serve lets its replicas listen


@dataclass(frozen=True)
class Node:
    """One `ray start --block` and all that runs under it."""

    process: subprocess.Popen[bytes]

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """The processes of a deployment's replicas on this node."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in family if f"ServeReplica:mlops-assets:{deployment}" in title(process)]

    def ingress(self) -> str:
        """The address of this node's one ingress replica itself."""
        (replica,) = self.replicas("Ingress")
        listening = {c.laddr.port for c in replica.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        (port,) = listening.intersection(DIRECT_PORTS)
        return f"http://127.0.0.1:{port}"


@dataclass(frozen=True)
class Nodes:
    """Head and worker.

    Attributes:
        worker_port: where the worker's HAProxy listens; the head's is where the endpoint is told to.
    """

    address: str
    head: Node
    worker: Node
    worker_port: int

    @property
    def both(self) -> tuple[Node, Node]:
        return self.head, self.worker


@contextmanager
def two_nodes() -> Iterator[Nodes]:
    """A cluster for as long as the block lasts; meanwhile the environment holds what admits a process to it."""
    folder = Path(tempfile.mkdtemp(prefix="two-", dir="/tmp"))  # short, as a socket's path may have 107 bytes
    port, worker_port = free_port(), free_port()
    address = f"127.0.0.1:{port}"
    head = ("--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false")
    started: list[Node] = []
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "token")
        environment.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        environment.setenv("RAY_SERVE_WORKER_PROXY_HTTP_PORT", str(worker_port))
        environment.setenv("RAY_worker_niceness", "0")
        try:
            started.append(_start(folder / "head.log", *head, f"--ray-client-server-port={free_port()}"))
            started.append(_start(folder / "worker.log", f"--address={address}"))
            yield Nodes(address, *started, worker_port)
        finally:
            for node in reversed(started):
                _end(node)
            shutil.rmtree(folder, ignore_errors=True)


def _start(log: Path, *role: str) -> Node:
    own = (f"--dashboard-agent-listen-port={free_port()}", "--num-cpus=2", "--object-store-memory=100000000")
    ray = Path(sys.executable).parent / "ray"
    command = [ray, "start", *role, *own, "--block", "--disable-usage-stats"]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    node = Node(subprocess.Popen(command, env=env, stdout=log.open("wb"), stderr=subprocess.STDOUT))
    try:
        wait_until(lambda: "Ray runtime started" in log.read_text() or node.process.poll() is not None, 60)
        assert node.process.poll() is None
    except AssertionError:
        print(log.read_text())
        _end(node)
        raise
    return node


def _end(node: Node) -> None:
    if node.process.poll() is not None:
        return
    family = psutil.Process(node.process.pid).children(recursive=True)
    node.process.terminate()
    node.process.wait(30)
    _, alive = psutil.wait_procs(family, 10)
    for process in alive:
        process.kill()
