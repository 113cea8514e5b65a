"""Ports for servers that start later."""

from __future__ import annotations

import socket
from pathlib import Path

from mlops_assets.ports import free_port


def test_a_port_on_which_something_listens_is_not_given() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        assert port not in {free_port() for _ in range(10_000)}


def test_no_port_is_given_that_the_system_may_give_to_a_connection() -> None:
    first, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert max(free_port() for _ in range(10_000)) < int(first)
