"""The express lane answers as the long way through FastAPI does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import fastapi.routing
import httpx
import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from hypothesis import given
from hypothesis import strategies as st
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from mlops_assets.serving.arm_override import ArmOverride
from mlops_assets.serving.express_lane import ExpressLane
from mlops_assets.serving.limits import LimitBody, NoTraces
from mlops_assets.serving.problems import Problem
from mlops_assets.serving.schemas import PredictReply, PredictRequest
from mlops_assets.serving.tracing import TraceContext


def refuse() -> None:
    raise Problem(HTTPStatus.UNAUTHORIZED, "no token")


def faults(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return PlainTextResponse(repr(error.errors()), 422)


def build(*needs: Any) -> FastAPI:
    """An app whose route echoes what it understood, behind the layers of the endpoint; some texts make it fail."""
    layers = [Middleware(TraceContext), Middleware(NoTraces), Middleware(LimitBody), Middleware(ArmOverride, ())]
    app = FastAPI(middleware=layers)
    app.add_exception_handler(RequestValidationError, faults)
    app.add_exception_handler(Problem, lambda _, problem: problem.response())  # type: ignore[attr-defined]

    @app.post("/predict", response_model_exclude_none=True, dependencies=[Depends(need) for need in needs])
    async def predict(body: PredictRequest) -> PredictReply:
        if body.text == "refused":
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "too much", headers={"Retry-After": "1"})
        if body.text == "broken":
            raise ValueError(body.text)
        return PredictReply(
            label=body.text,
            confidence=0.1 + 0.2,
            probabilities={"refund": 1e-17} if body.return_probabilities else None,
            latency_ms=1.0,
            model=f"{body.event_timestamp} {body.repeat}",
            model_version=1,
            arm="stable",
            prediction_id="p",
            features_source="default",
            features_reason=body.customer_id,
        )

    return app


APP = build()
LONG, SHORT = TestClient(APP), TestClient(ExpressLane(APP))
JSON = {"content-type": "application/json"}


def alike(short: httpx.Response, long: httpx.Response) -> bool:
    return (short.status_code, short.text, dict(short.headers)) == (long.status_code, long.text, dict(long.headers))


moments = st.sampled_from(["2026-03-01T12:00:00Z", "2026-03-01T12:00:00+05:30", "2026-03-01", 0, 1.5e9, "soon"])
anything = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()))
bodies = st.one_of(
    st.fixed_dictionaries(
        {"text": st.text()},
        optional={
            "customer_id": st.text(),
            "return_probabilities": st.one_of(st.booleans(), anything),
            "event_timestamp": moments,
            "repeat": anything,
            "more": anything,
        },
    ),
    anything,
).map(lambda body: json.dumps(body).encode())
broken = st.one_of(st.binary(), bodies.map(lambda body: body[:-1]), st.just(b"\xef\xbb\xbf{}"))


@pytest.mark.slow
@given(
    st.one_of(bodies, broken),
    st.sampled_from(["application/json", "application/json; charset=utf-8", "text/plain", "application/x+json", ""]),
)
def test_every_request_gets_the_reply_that_fastapi_gives(body: bytes, content_type: str) -> None:
    headers = {"content-type": content_type} if content_type else {}
    assert alike(*(one.post("/predict", content=body, headers=headers) for one in (SHORT, LONG)))


def test_a_good_request_does_not_go_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastapi.routing, "solve_dependencies", refuse)
    assert SHORT.post("/predict", json={"text": "where is it?"}).status_code == 200
    assert LONG.post("/predict", json={"text": "where is it?"}).status_code == HTTPStatus.INTERNAL_SERVER_ERROR


@pytest.mark.parametrize(
    ("text", "status"), [("refused", HTTPStatus.TOO_MANY_REQUESTS), ("broken", HTTPStatus.INTERNAL_SERVER_ERROR)]
)
def test_what_fails_is_told_alike_and_without_a_trace(
    text: str, status: HTTPStatus, caplog: pytest.LogCaptureFixture
) -> None:
    short, long = (one.post("/predict", json={"text": text}) for one in (SHORT, LONG))
    assert alike(short, long)
    assert short.status_code == status
    assert "Traceback" not in short.text
    assert text not in caplog.text.replace("ValueError", "")


def halves(body: bytes) -> Iterator[bytes]:
    yield body[:10]
    yield body[10:]


def test_a_body_that_comes_in_parts_is_read_to_its_end() -> None:
    body = json.dumps({"text": "where is it?"}).encode()
    assert SHORT.post("/predict", content=halves(body), headers=JSON).json()["label"] == "where is it?"


@pytest.mark.parametrize(
    "body",
    [json.dumps({"text": "x" * 70_000}).encode(), b'{"text": ' + b"[" * 40 + b"]" * 40 + b"}"],
    ids=["too long", "too deep"],
)
def test_the_limits_hold(body: bytes) -> None:
    short, long = (one.post("/predict", content=body, headers=JSON) for one in (SHORT, LONG))
    assert alike(short, long)
    assert short.is_client_error


def test_a_trace_is_named_in_the_reply() -> None:
    given = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    reply = SHORT.post("/predict", json={"text": "hello"}, headers=given)
    assert reply.headers["traceparent"].startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")


def test_an_arm_is_nobodys_choice_without_the_token() -> None:
    reply = SHORT.post("/predict", json={"text": "hello"}, headers={"X-Mlops-Arm": "canary"})
    assert reply.status_code == HTTPStatus.UNAUTHORIZED


def test_what_a_route_depends_on_is_asked() -> None:
    reply = TestClient(ExpressLane(build(refuse))).post("/predict", json={"text": "where is it?"})
    assert reply.status_code == HTTPStatus.UNAUTHORIZED
