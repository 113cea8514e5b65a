"""The customers of a demo: every message once, in order, its label when it was known, every request counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.demo.traffic import Customers
from mlops_assets.ports import free_port
from mlops_assets.settings import Settings
from tests.data.factories import START, messages
from tests.http_server import QuietHandler, listening


class Desk(ThreadingHTTPServer):
    """Stands where the endpoint stands, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.refuses = False
        super().__init__(("127.0.0.1", 0), _Clerk)


class _Clerk(QuietHandler):
    server: Desk

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        content = json.dumps({"prediction_id": f"p-{body.get('text')}"}).encode()
        self.say(content, 503 if self.server.refuses else 200)


@pytest.fixture
def desk() -> Iterator[Desk]:
    with listening(Desk()) as server:
        yield server


@pytest.fixture
def customers(desk: Desk, tmp_path: Path) -> Customers:
    settings = Settings(home=tmp_path, serve_port=desk.server_port, _env_file=None)
    names = [None, *(f"c{n}" for n in range(1, 48))]
    return Customers(settings, "m", messages(48, customer_id=names, text=[f"t{n}" for n in range(48)]))


def test_a_days_messages_are_sent_as_they_arrived(desk: Desk, customers: Customers) -> None:
    assert customers.send(START, START + timedelta(days=1)) == 24
    assert {path for path, _ in desk.asked} == {"/models/m/predict"}
    sent = {body["text"]: body for _, body in desk.asked}
    assert sent["t0"] == {"text": "t0", "event_timestamp": START.isoformat()}
    assert sent["t5"]["customer_id"] == "c5"
    assert len(sent) == 24
    ledger = customers.ledger
    assert (ledger.sent, ledger.answered, ledger.failed) == (24, 24, 0)
    assert ledger.prediction_of["m5"] == "p-t5"


def test_a_label_is_told_once_when_it_is_known_and_only_of_what_was_sent(desk: Desk, customers: Customers) -> None:
    customers.send(START, START + timedelta(hours=3))
    desk.asked.clear()
    assert customers.tell_labels(START + timedelta(hours=23)) == 0  # each is known a day after its message
    assert customers.tell_labels(START + timedelta(days=1, hours=1)) == 2
    assert customers.tell_labels(START + timedelta(days=9)) == 1
    assert customers.tell_labels(START + timedelta(days=9)) == 0
    path, body = desk.asked[0]
    assert path == "/models/m/feedback"
    assert set(body) == {"prediction_id", "label", "label_timestamp"}


def test_repeats_are_marked_come_from_fresh_customers_and_have_no_labels(desk: Desk, customers: Customers) -> None:
    at = START + timedelta(days=5)
    for _ in range(2):
        assert customers.repeat(START, START + timedelta(days=1), at, limit=5) == 5
    assert all(body["repeat"] and body["event_timestamp"] == at.isoformat() for _, body in desk.asked)
    assert len({body["customer_id"] for _, body in desk.asked}) == 10
    assert customers.tell_labels(START + timedelta(days=9)) == 0


def test_a_request_that_is_refused_is_a_failure_and_the_others_go_on(desk: Desk, customers: Customers) -> None:
    desk.refuses = True
    customers.send(START, START + timedelta(hours=2))
    desk.refuses = False
    customers.send(START + timedelta(hours=2), START + timedelta(hours=4))
    ledger = customers.ledger
    assert (ledger.sent, ledger.answered, ledger.failed) == (4, 2, 2)
    assert len(ledger.failures) == 2
    assert "503" in ledger.failures[0]


def test_nobody_at_the_address_is_a_failure_too(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, serve_port=free_port(), _env_file=None)
    customers = Customers(settings, "m", messages(3))
    customers.send(START, START + timedelta(days=1))
    assert customers.ledger.failed == 3
