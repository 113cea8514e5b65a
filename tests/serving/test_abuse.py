"""What strangers may do to the open port: be slow, send rubbish, ask too much. None of it harms anybody else."""

from __future__ import annotations

import random
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from mlops_assets.serving.haproxy import RATE_SECONDS, REQUEST_SECONDS
from tests.serving.factories import write_artefact
from tests.serving.world import Endpoint, new_endpoint, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
RATE = 60.0
REQUEST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 26\r\n\r\n"
BODY = b'{"text": "where is it?!!"}'


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    endpoint = new_endpoint(tmp_path_factory.mktemp("abuse"), rate_limit=RATE, replay_clock=False)
    endpoint.publish(partial(write_artefact, label="refund"), "production")
    endpoint.start()
    try:
        yield endpoint
    finally:
        assert endpoint.stop() == []


def connect(endpoint: Endpoint) -> socket.socket:
    return socket.create_connection((endpoint.settings.host, endpoint.settings.serve_port), timeout=30)


def reply_to(endpoint: Endpoint, sent: bytes) -> bytes:
    """What comes back until the other side closes, or nothing more comes."""
    with connect(endpoint) as link:
        try:
            link.sendall(sent)
            link.shutdown(socket.SHUT_WR)
            return b"".join(iter(partial(link.recv, 65536), b""))
        except ConnectionError:  # closed on us in the middle of the rubbish
            return b""


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


def test_rubbish_on_the_port_is_refused_and_breaks_nothing(endpoint: Endpoint) -> None:
    seeded = random.Random(20261124)
    codes: Counter[int] = Counter()
    for _ in range(300):
        reply = reply_to(endpoint, rubbish(seeded))
        codes.update(int(code) for code in re.findall(rb"^HTTP/1\.[01] (\d{3})", reply, re.MULTILINE))
        time.sleep(1.2 / RATE)  # else the limit would refuse it unread
    assert codes.total() > 150
    assert 429 not in codes
    assert not [code for code in codes if code >= 500], codes
    assert endpoint.predict().status_code == 200


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
            REQUEST.replace(b"POST", seeded.choice([b"GET", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"X"])) + BODY,
        ]
    )


def test_an_address_that_asks_too_much_is_refused_until_it_slows_down(endpoint: Endpoint) -> None:
    with endpoint.client as client:
        replies = [client.get("/") for _ in range(round(1.3 * RATE * RATE_SECONDS))]
        refused = [reply for reply in replies if reply.status_code == 429]
        assert {reply.status_code for reply in replies} == {200, 429}
        assert {reply.headers["content-type"] for reply in refused} == {"application/problem+json"}
        assert refused[0].headers["retry-after"] == "1"
        assert "requests a second" in refused[0].json()["detail"]
    wait_until(lambda: httpx.get(f"{endpoint.settings.endpoint}/").status_code == 200, 2.5 * RATE_SECONDS)
