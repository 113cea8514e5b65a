"""An alert is always in the log, and an address that fails is reported, never raised."""

import json
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from mlops_assets.monitoring.alerts import Severity
from mlops_assets.resources.notify import notify
from mlops_assets.settings import Settings
from tests.http_server import QuietHandler, listening


class Chat(ThreadingHTTPServer):
    """A receiver of Apprise's json:// messages."""

    def __init__(self) -> None:
        self.received: list[dict[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Receiver)


class _Receiver(QuietHandler):
    server: Chat

    def do_POST(self) -> None:
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.say(b"")


@pytest.fixture
def chat() -> Iterator[Chat]:
    with listening(Chat()) as server:
        yield server


def lines(home: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (home / "alerts.ndjson").read_text().splitlines()]


def test_without_an_address_the_log_has_it(tmp_path: Path) -> None:
    told = notify(Settings(home=tmp_path, _env_file=None), "Drift", "since Monday", Severity.TICKET)
    assert not told.failed
    (line,) = lines(tmp_path)
    assert (line["title"], line["body"], line["severity"]) == ("Drift", "since Monday", "ticket")


def test_an_address_receives_title_body_and_urgency(tmp_path: Path, chat: Chat) -> None:
    settings = Settings(home=tmp_path, notify_urls=[f"json://127.0.0.1:{chat.server_port}"], _env_file=None)
    told = notify(settings, "Canary aborted", "wrong answers", Severity.PAGE)
    assert not told.failed
    (message,) = chat.received
    assert (message["title"], message["message"], message["type"]) == ("Canary aborted", "wrong answers", "failure")


def test_an_address_that_fails_is_returned_and_the_others_are_told(tmp_path: Path, chat: Chat) -> None:
    dead = "json://someone:secret@127.0.0.1:1"
    alive = f"json://127.0.0.1:{chat.server_port}"
    settings = Settings(home=tmp_path, notify_urls=[dead, "nonsense", alive], _env_file=None)
    told = notify(settings, "Drift", "since Monday", Severity.TICKET)
    assert told.failed
    assert len(told.failed) == 2
    assert len(chat.received) == len(lines(tmp_path)) == 1
    assert "secret" not in " ".join(told.failed)


def test_a_log_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "alerts.ndjson").mkdir()
    told = notify(Settings(home=tmp_path, _env_file=None), "Drift", "since Monday", Severity.TICKET)
    assert told.failed == ("alerts.ndjson",)
