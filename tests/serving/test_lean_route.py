"""The short way through FastAPI answers as the long one does."""

from __future__ import annotations

import json
from typing import Any

import fastapi.routing
import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from mlops_assets.serving.lean_route import LeanRoute
from mlops_assets.serving.schemas import PredictReply, PredictRequest


def refuse() -> None:
    raise AssertionError("asked")


def faults(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return PlainTextResponse(repr(error.errors()), 422)


def client(route: type[APIRoute], *needs: Any) -> TestClient:
    """An app whose one route echoes what it understood."""
    app = FastAPI()
    app.router.route_class = route
    app.add_exception_handler(RequestValidationError, faults)

    @app.post("/predict", response_model_exclude_none=True, dependencies=[Depends(need) for need in needs])
    async def predict(body: PredictRequest) -> PredictReply:
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

    return TestClient(app)


LONG, SHORT = client(APIRoute), client(LeanRoute)

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


@given(
    st.one_of(bodies, broken),
    st.sampled_from(["application/json", "application/json; charset=utf-8", "text/plain", "application/x+json", ""]),
)
def test_every_request_gets_the_reply_that_fastapi_gives(body: bytes, content_type: str) -> None:
    headers = {"content-type": content_type} if content_type else {}
    long, short = (one.post("/predict", content=body, headers=headers) for one in (LONG, SHORT))
    assert (short.status_code, short.text, dict(short.headers)) == (long.status_code, long.text, dict(long.headers))


def test_a_good_request_does_not_go_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastapi.routing, "solve_dependencies", refuse)
    assert SHORT.post("/predict", json={"text": "where is it?"}).status_code == 200
    with pytest.raises(TypeError):
        LONG.post("/predict", json={"text": "where is it?"})


def test_what_a_route_depends_on_is_asked() -> None:
    with pytest.raises(AssertionError, match="asked"):
        client(LeanRoute, refuse).post("/predict", json={"text": "where is it?"})
