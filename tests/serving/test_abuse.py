"""What strangers may do: be slow, send rubbish, ask too much, log in to the machine. None of it harms anybody else."""

from __future__ import annotations

import random
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest

from mlops_assets.serving.haproxy import METRICS_PATH, RATE_SECONDS, REQUEST_SECONDS
from mlops_assets.serving.local_ray import temporary_folder
from mlops_assets.settings import PROJECT_ROOT
from tests.serving.factories import write_artefact
from tests.serving.world import Endpoint, new_endpoint, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
RATE = 60.0
ADDRESSES = [f"127.0.0.{last}" for last in range(2, 18)]  # each of which may ask as often as the limit says
QUIET_SECONDS = 0.5
REQUEST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 26\r\n\r\n"
BODY = b'{"text": "where is it?!!"}'
INFER = (
    b"POST /v2/models/intent_classifier/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
    b"Inference-Header-Content-Length: %b\r\n\r\n"
)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    endpoint = new_endpoint(tmp_path_factory.mktemp("abuse"), rate_limit=RATE, replay_clock=False)
    endpoint.publish(partial(write_artefact, label="refund"), "production")
    with endpoint.running():
        yield endpoint


def connect(endpoint: Endpoint, address: str = "127.0.0.1") -> socket.socket:
    where = endpoint.settings.host, endpoint.settings.serve_port
    return socket.create_connection(where, timeout=30, source_address=(address, 0))


def replies_to(endpoint: Endpoint, sent: bytes, address: str) -> bytes:
    """What comes back until the other side closes, or nothing has come for a while."""
    with connect(endpoint, address) as link:
        link.settimeout(QUIET_SECONDS)
        came = []
        with suppress(ConnectionError, TimeoutError):  # closed on us in the middle of the rubbish, or it waits for more
            link.sendall(sent)
            came += iter(partial(link.recv, 65536), b"")
        return b"".join(came)


def sockets(endpoint: Endpoint, kind: str) -> list[tuple[str, Any]]:
    """Every socket of the endpoint's processes, with the process's name."""
    assert endpoint.process is not None
    server = psutil.Process(endpoint.process.pid)
    found = []
    for process in (server, *server.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # HAProxy is replaced when replicas come, and what ended listens no more
            name, connections = process.name(), process.net_connections(kind)
            found += [(name, connection) for connection in connections]
    return found


def open_to_the_network(endpoint: Endpoint) -> list[tuple[str, int]]:
    """Name and port of every process that listens on more than the loopback."""
    found = [(name, used.laddr) for name, used in sockets(endpoint, "tcp") if used.status == psutil.CONN_LISTEN]
    return [(name, at.port) for name, at in found if not at.ip.startswith(("127.", "::ffff:127.", "::1"))]


def test_no_port_is_open_to_the_network_but_one_of_each_replica_which_wants_a_token(endpoint: Endpoint) -> None:
    found = open_to_the_network(endpoint)
    # "[::]:0" is hard-coded for calls between deployments.
    assert {name for name, _ in found if not name.startswith("ray::ServeReplica:")} == set()
    for _, port in found:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/ray.serve.ASGIService/HandleRequest")(b"", timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_no_other_user_of_the_machine_reaches_a_socket_of_ray_or_haproxy(endpoint: Endpoint) -> None:
    folder = temporary_folder(endpoint.settings)
    assert folder.stat().st_mode & 0o777 == 0o700
    paths = {Path(used.laddr) for _, used in sockets(endpoint, "unix") if used.laddr}
    assert {path.is_relative_to(folder) for path in paths} == {True}, paths
    proxys = {path.name: path.stat().st_mode & 0o777 for path in folder.glob("ha/*/*.sock")}
    assert proxys == dict.fromkeys(("admin.sock", "m.sock", "s.sock"), 0o600)  # the first commands it


def test_haproxys_own_counts_are_those_that_alerts_and_dashboard_name_and_tell_of_no_replica(
    endpoint: Endpoint,
) -> None:
    told = httpx.get(endpoint.settings.endpoint + METRICS_PATH).raise_for_status().text
    files = [PROJECT_ROOT / "deploy" / "prometheus" / "rules.yaml", PROJECT_ROOT / "deploy/grafana/mlops-assets.json"]
    named = {name for file in files for name in re.findall(r"haproxy_\w+", file.read_text())}
    assert len(named) == 2
    for name in named:
        assert f'{name}{{proxy="http-mlops-assets"' in told or f'{name}{{proxy="http_frontend"' in told
    assert "SERVE_REPLICA" not in told


def test_callers_that_send_half_a_request_are_cut_off_and_hold_up_nobody(endpoint: Endpoint) -> None:
    halves = [REQUEST[:40], REQUEST, REQUEST + BODY[:5]] * 20
    links = [connect(endpoint) for _ in halves]
    begun = time.monotonic()
    for link, half in zip(links, halves, strict=True):
        link.sendall(half)
    assert endpoint.predict().status_code == 200
    assert time.monotonic() - begun < REQUEST_SECONDS / 2
    for link, half in zip(links, halves, strict=True):
        reply = link.recv(65536)
        assert reply.startswith(b"HTTP/1.1 408 ")
        assert (b"application/problem+json" in reply) == half.startswith(REQUEST)
        link.close()
    assert REQUEST_SECONDS - 1 < time.monotonic() - begun < 2 * REQUEST_SECONDS


def hang_up_on(endpoint: Endpoint, sent: bytes) -> None:
    """Send, and reset the connection without a look at what comes back."""
    with connect(endpoint) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(ConnectionError):
            link.sendall(sent)


def test_rubbish_on_the_port_is_refused_and_breaks_nothing(endpoint: Endpoint) -> None:
    seeded = random.Random(20261124)
    pid = endpoint.health()["pid"]

    def codes_of(sent: bytes, address: str) -> list[int]:
        return [int(code) for code in re.findall(rb"HTTP/1\.[01] (\d{3}) ", replies_to(endpoint, sent, address))]

    with ThreadPoolExecutor(len(ADDRESSES)) as callers:
        found = callers.map(codes_of, [rubbish(seeded) for _ in range(600)], cycle(ADDRESSES))
        codes = Counter(code for some in found for code in some)
        list(callers.map(partial(hang_up_on, endpoint), [rubbish(seeded) for _ in range(100)]))
    assert codes.total() > 250
    assert codes[200] > 50  # some of it is a request after all
    assert 429 not in codes
    assert not [code for code in codes if code >= 500], codes
    assert endpoint.predict().status_code == 200
    assert endpoint.health()["pid"] == pid


def rubbish(seeded: random.Random) -> bytes:
    """Noise, or a good request with a piece of it changed, cut, doubled or replaced by noise."""
    noise = seeded.randbytes(seeded.randrange(1, 200))
    whole = REQUEST + BODY
    at = seeded.randrange(len(whole))
    to = seeded.randrange(at, len(whole))
    return seeded.choice(
        [
            noise,
            whole[:at],
            whole[:at] + noise + whole[at:],
            whole[:at] + noise + whole[to:],
            whole[:at] + whole[at:to] * 2 + whole[to:],
            REQUEST + bytes(seeded.choice(b'{}[]":,0truefalsenull ') for _ in BODY),
            REQUEST.replace(b"26", str(seeded.choice([-1, 0, 5, 10**9, 10**30])).encode()) + BODY,
            REQUEST.replace(b"/predict", b"/" + bytes(seeded.choice(b"%./?#ab{}\\0") for _ in range(20))) + BODY,
            whole + noise,  # behind a request that is answered, on the same connection
            whole + whole[:at],
            whole * seeded.randrange(2, 4) + noise,
            chunked(seeded),
            REQUEST[:-2]
            + b"".join(b"X-%d: %b\r\n" % (n, b"a" * seeded.randrange(200)) for n in range(100))
            + b"\r\n"
            + BODY,
            INFER % (len(noise), seeded.choice([b"0", b"-1", b"9" * 30, b"%d" % len(noise)])) + noise,
            REQUEST.replace(b"POST", seeded.choice([b"GET", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"X"])) + BODY,
        ]
    )


def chunked(seeded: random.Random) -> bytes:
    """A body in chunks whose sizes may be lies, at times beside a length that contradicts them."""
    size = seeded.choice([b"%x" % len(BODY), b"0", b"-1", b"zz", b"f" * 20, b"1;x=y"])
    length = seeded.choice([b"", b"Content-Length: 5\r\n"])
    head = REQUEST.replace(b"Content-Length: 26\r\n", length + b"Transfer-Encoding: chunked\r\n")
    return head + size + b"\r\n" + BODY + b"\r\n" + seeded.choice([b"0\r\n\r\n", b"", b"0\r\nX: y\r\n\r\n"])


def test_an_address_that_asks_too_much_is_refused_until_it_slows_down_but_for_an_admin(endpoint: Endpoint) -> None:
    with endpoint.client as client:
        replies = [client.get("/") for _ in range(round(1.3 * RATE * RATE_SECONDS))]
        refused = [reply for reply in replies if reply.status_code == 429]
        assert {reply.status_code for reply in replies} == {200, 429}
        assert {reply.headers["content-type"] for reply in refused} == {"application/problem+json"}
        assert refused[0].headers["retry-after"] == "1"
        assert "requests a second" in refused[0].json()["detail"]
        body = {"version": 1, "reason": "harm"}
        stop = client.build_request("POST", "/models/intent_classifier/rollout/abort", json=body)
        stop.headers["authorization"] = "Bearer a guess"
        assert client.send(stop).status_code == 429
        stop.headers["authorization"] = f"bearer {endpoint.settings.admin_secret()}"
        assert client.send(stop).status_code == 409, "whoever may stop a rollout can, though there is none now"
    wait_until(lambda: httpx.get(f"{endpoint.settings.endpoint}/").status_code == 200, 2.5 * RATE_SECONDS)
