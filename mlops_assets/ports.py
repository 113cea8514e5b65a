"""Ports that are free now and still will be when their server binds them."""

from __future__ import annotations

import itertools
import random
import socket

# Below the ports that Linux gives to whoever connects (32768 on) and those of Ray's replicas (30000 on), above those of
# Ray's workers (10002 to 19999): nobody takes one by chance between the choice and the use.
_RANGE = range(20_000, 30_000)
_ports = itertools.cycle(random.SystemRandom().sample(_RANGE, len(_RANGE)))


def free_port() -> int:
    """A TCP port of this machine on which nobody answers, another one with each call."""
    return next(port for port in _ports if not _answers(port))


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
