"""What the OpenAPI document says of replies beside their schemas: the problems of a route, and examples of each.

Words only; what really happens is decided where it happens, and the tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Path
from fastapi.openapi.utils import get_openapi

from mlops_assets.serving.problems import MEDIA_TYPE, Problem

Responses = dict[int | str, dict[str, Any]]

ModelName = Annotated[str, Path(description="Name of a declared model.", examples=["intent_classifier"])]
VersionNumber = Annotated[str, Path(description="Number of the version in production.", examples=["1"])]

_DETAILS = {
    400: "the body is not valid JSON: Expecting value",
    401: "this route needs `Authorization: Bearer <token>`",
    404: "there is no model 'other'; there are: intent_classifier",
    408: "the request did not arrive whole within 10 s",
    409: "there is no rollout of version 7",
    413: "a body may have at most 65536 bytes",
    415: "the body must be JSON, and say so: `Content-Type: application/json`",
    422: "text: has 612 characters; intent_classifier takes at most 512",
    429: "overloaded: 256 requests are waiting already",
    500: "version 3 could not answer this message",
    502: "no replica answered; ask again in a moment",
    503: "intent_classifier has no version with the alias production yet; GET /health tells more",
    504: "no replica answered within 30 s",
}
_PROTOCOLS_DETAILS = _DETAILS | {415: "a compressed body is not supported; send it as it is"}
_FIELDS = {422: [{"field": "text", "detail": "has 612 characters; intent_classifier takes at most 512"}]}
_PROBLEM_SCHEMA = {"$ref": "#/components/schemas/ProblemDocument"}
_FASTAPIS_OWN = {"application/json": {"schema": {"$ref": "#/components/schemas/HTTPValidationError"}}}
_ERROR_SCHEMA = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}

# What the proxy in front of the replicas answers by itself, to any route, and what a fault of ours becomes.
ANYWHERE = (408, 429, 500, 502, 503, 504)
BODY = (400, 413, 415, 422)
GUARDED = (401,)


def problems(*statuses: int) -> Responses:
    """These errors of a route, as problem documents."""
    return {status: _described(status, {MEDIA_TYPE: _problem(status)}) for status in statuses}


def protocol_errors(*statuses: int) -> Responses:
    """These errors in the shape of the Open Inference Protocol; the proxy's own are problem documents all the same."""
    found: Responses = {}
    for status in statuses:
        content = {"application/json": {"schema": _ERROR_SCHEMA, "example": {"error": _PROTOCOLS_DETAILS[status]}}}
        found[status] = _described(status, content | ({MEDIA_TYPE: _problem(status)} if status in ANYWHERE else {}))
    return found


def reply(example: Any, media_type: str = "application/json", status: int = 200) -> Responses:
    """An example of what a route answers that has no schema of its own for it."""
    return {status: _described(status, {media_type: {"example": example}})}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document of an application, without the 422 that FastAPI adds to every route with a parameter in its path.

    Any name is a string, so it cannot happen, and errors here have another shape.
    """
    if app.openapi_schema is None:
        built = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for methods in built["paths"].values():
            for operation in methods.values():
                if operation["responses"].get("422", {}).get("content") == _FASTAPIS_OWN:
                    del operation["responses"]["422"]
        for name in ("HTTPValidationError", "ValidationError"):
            built["components"]["schemas"].pop(name, None)
        app.openapi_schema = built
    return app.openapi_schema


def _problem(status: int) -> dict[str, Any]:
    problem = Problem(HTTPStatus(status), _DETAILS[status], errors=_FIELDS.get(status, ()))
    return {"schema": _PROBLEM_SCHEMA, "example": problem.document()}


def _described(status: int, content: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": HTTPStatus(status).phrase, "content": dict(content)}


PREDICTION: dict[str, Any] = {
    "label": "order_status",
    "confidence": 0.97,
    "latency_ms": 6.2,
    "model": "intent_classifier",
    "model_version": 3,
    "arm": "stable",
    "prediction_id": "0b7d0c1e5a0f4b55a2b4a8c9e0a1f3d2",
    "features_source": "online",
}
BATCH: dict[str, Any] = {"predictions": [PREDICTION, Problem(HTTPStatus(422), _DETAILS[422]).document()], "failed": 1}
ROLLOUT: dict[str, Any] = {
    "model": "intent_classifier",
    "version": 4,
    "stable_version": 3,
    "phase": "progressing",
    "reason": "3 of 30 minutes",
    "weight": 0.1,
    "decision": {"action": "continue", "reason": "3 of 30 minutes", "expected_seconds_to_verdict": 1620.0},
}
HEALTH: dict[str, Any] = {
    "status": "ok",
    "ready": True,
    "replica": "ingress-5f0c2a9be1d4",
    "models": {"intent_classifier": {"stable": {"version": 3}, "canary": None, "error": None}},
    "registry": {"ok": True, "error": None},
    "guard": {"ok": True, "error": None},
}
METRICS = 'mlops_registry_reachable 1.0\nmlops_refused_version{model="intent_classifier",replica="a"} 0.0\n'
PAGE = "<!doctype html><title>Rollout of intent_classifier</title>"
INDEX: dict[str, Any] = {
    "name": "mlops-assets endpoint",
    "default_model": "intent_classifier",
    "models": ["intent_classifier"],
}
SERVER: dict[str, Any] = {"name": "mlops-assets", "version": "0.1.0", "extensions": ["binary_tensor_data"]}
METADATA: dict[str, Any] = {
    "name": "intent_classifier",
    "versions": ["3"],
    "platform": "onnxruntime_onnx",
    "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
    "outputs": [{"name": "label", "datatype": "BYTES", "shape": [-1]}],
}
INFERENCE: dict[str, Any] = {
    "model_name": "intent_classifier",
    "model_version": "3",
    "id": "42",
    "outputs": [{"name": "label", "datatype": "BYTES", "shape": [1], "data": ["order_status"]}],
}
