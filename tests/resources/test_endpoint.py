"""The client says what the endpoint said: answers as they are, refusals with their problem document."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.resources.endpoint import Endpoint, EndpointRefused, EndpointUnavailable
from mlops_assets.settings import Settings
from tests.http_server import QuietHandler, listening

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Stage(ThreadingHTTPServer):
    """Plays the endpoint's part: answers as rehearsed and remembers what it was asked."""

    def __init__(self) -> None:
        self.replies: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, dict[str, Any] | None, str | None]] = []
        super().__init__(("127.0.0.1", 0), _Player)


class _Player(QuietHandler):
    server: Stage

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append((f"{self.command} {self.path}", body, self.headers.get("Authorization")))
        status, reply = self.server.replies[f"{self.command} {self.path}"]
        self.say(reply.encode() if isinstance(reply, str) else json.dumps(reply).encode(), status)

    do_POST = do_GET


@pytest.fixture
def stage() -> Iterator[Stage]:
    with listening(Stage()) as server:
        yield server


@pytest.fixture
def endpoint(stage: Stage, tmp_path: Path) -> Iterator[Endpoint]:
    settings = Settings(home=tmp_path, serve_port=stage.server_port, token="open sesame", _env_file=None)
    with Endpoint(settings) as client:
        yield client


def test_a_prediction_sends_only_what_was_given(stage: Stage, endpoint: Endpoint) -> None:
    stage.replies["POST /models/m/predict"] = (200, {"label": "refund"})
    assert endpoint.predict("m", "money back")["label"] == "refund"
    endpoint.predict("m", "money back", customer_id="c1", event_timestamp=NOW, repeat=True)
    assert [body for _, body, _ in stage.asked] == [
        {"text": "money back"},
        {"text": "money back", "customer_id": "c1", "event_timestamp": NOW.isoformat(), "repeat": True},
    ]


def test_admin_routes_carry_the_token_and_the_others_do_not(stage: Stage, endpoint: Endpoint) -> None:
    stage.replies = {
        "POST /clock": (200, {"now": NOW.isoformat()}),
        "GET /health": (200, {"status": "ok"}),
    }
    assert endpoint.set_clock(NOW) == NOW
    endpoint.health()
    assert [token for _, _, token in stage.asked] == ["Bearer open sesame", None]


@pytest.mark.parametrize(
    ("said", "result", "why"),
    [
        ("sealed", "sealed", "sealed"),
        ("aborted: 12 of 40 answers wrong", "aborted", "12 of 40 answers wrong"),
        ("not ready: the rollout is progressing: 3 minutes", "not ready", "the rollout is progressing: 3 minutes"),
    ],
)
def test_the_guards_answer_is_taken_apart(stage: Stage, endpoint: Endpoint, said: str, result: str, why: str) -> None:
    stage.replies["POST /models/m/rollout/seal"] = (200, {"answer": said, "phase": "sealed"})
    answer = endpoint.seal("m", 3)
    assert (answer["result"], answer["why"]) == (result, why)


def test_a_refusal_carries_the_problem_document(stage: Stage, endpoint: Endpoint) -> None:
    problem = {"type": "about:blank", "title": "Conflict", "status": 409, "detail": "no rollout of version 3"}
    stage.replies["POST /models/m/rollout/abort"] = (409, problem)
    with pytest.raises(EndpointRefused, match="no rollout of version 3") as refused:
        endpoint.abort("m", 3, "operator")
    assert refused.value.problem == problem


def test_a_refusal_without_a_problem_document_is_described(stage: Stage, endpoint: Endpoint) -> None:
    stage.replies["GET /health"] = (403, "<html>only from the office</html>")
    with pytest.raises(EndpointRefused, match="only from the office") as refused:
        endpoint.health()
    assert refused.value.status == 403


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_cannot_be_served_now_may_be_asked_again(stage: Stage, endpoint: Endpoint, status: int) -> None:
    problem = {"type": "about:blank", "title": "not now", "status": status, "detail": "ask again in a moment"}
    stage.replies["GET /models/m/rollout"] = (status, problem)
    with pytest.raises(EndpointUnavailable, match="ask again in a moment"):
        endpoint.rollout("m")


def test_nobody_at_the_address_is_unavailable(tmp_path: Path) -> None:
    with (
        Endpoint(Settings(home=tmp_path, serve_port=1, _env_file=None)) as client,
        pytest.raises(EndpointUnavailable, match="mlops status"),
    ):
        client.health()


@pytest.mark.parametrize("page", ["<html>welcome to nginx</html>", '{"status": "ok"}'])
def test_something_else_at_the_address_is_unavailable_and_says_so(stage: Stage, endpoint: Endpoint, page: str) -> None:
    stage.replies = {"GET /health": (200, "<html>welcome</html>"), "GET /metrics": (200, page)}
    for ask in (endpoint.health, lambda: endpoint.refused_version("m")):
        with pytest.raises(EndpointUnavailable, match="does something else listen there"):
            ask()
