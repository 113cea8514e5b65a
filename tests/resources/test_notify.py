"""An alert is always in the log file, and an address that fails is logged, never raised."""

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


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "mlops_assets.notify"]


def test_without_an_address_the_log_has_it(tmp_path: Path) -> None:
    notify(Settings(home=tmp_path, _env_file=None), "Drift", "since Monday", Severity.TICKET)
    (line,) = lines(tmp_path)
    assert (line["title"], line["body"], line["severity"]) == ("Drift", "since Monday", "ticket")


@pytest.mark.slow
def test_an_address_receives_title_body_and_urgency(tmp_path: Path, chat: Chat) -> None:
    settings = Settings(home=tmp_path, notify_urls=[f"json://127.0.0.1:{chat.server_port}"], _env_file=None)
    notify(settings, "Canary aborted", "wrong answers", Severity.PAGE)
    (message,) = chat.received
    assert (message["title"], message["message"], message["type"]) == ("Canary aborted", "wrong answers", "failure")


@pytest.mark.slow
def test_an_address_that_fails_is_logged_and_the_others_are_told(
    tmp_path: Path, chat: Chat, caplog: pytest.LogCaptureFixture
) -> None:
    dead = "json://someone:secret@127.0.0.1:1"
    alive = f"json://127.0.0.1:{chat.server_port}"
    settings = Settings(home=tmp_path, notify_urls=[dead, "nonsense", alive], _env_file=None)
    notify(settings, "Drift", "since Monday", Severity.TICKET)
    assert len(chat.received) == len(lines(tmp_path)) == 1
    said = logged(caplog)
    assert [line.split(" did not reach ")[0] for line in said] == ["alert 'Drift'"] * 2
    assert "secret" not in " ".join(said)


def test_a_log_that_cannot_be_written_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "alerts.ndjson").mkdir()
    notify(Settings(home=tmp_path, _env_file=None), "Drift", "since Monday", Severity.TICKET)
    (said,) = logged(caplog)
    assert "since Monday" in said
