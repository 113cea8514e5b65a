"""The Open Inference Protocol, version 2, over HTTP, so that its clients can ask this endpoint as any other.

Each row of an inference request is one message, answered, split and logged like any; a model has the
inputs `text` and `customer_id` and the outputs of `_OUTPUTS`. Errors have the protocol's shape,
``{"error": ...}``. How tensors are written is `tensors`' matter.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from importlib.metadata import version as installed_version
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from mlops_assets.serving import arm_override, openapi
from mlops_assets.serving.batch import Predict, answer_all
from mlops_assets.serving.endpoint import EndpointService
from mlops_assets.serving.model_service import ModelService
from mlops_assets.serving.openapi import ANYWHERE, ModelName, VersionNumber, protocol_errors, reply
from mlops_assets.serving.problems import Problem, invalid
from mlops_assets.serving.schemas import MAX_INSTANCES, PredictReply, PredictRequest
from mlops_assets.serving.tensors import (
    HEADER_LENGTH,
    PREFIX,
    InferRequest,
    OutputTensor,
    bad_request,
    read_request,
    write_reply,
)

_INPUTS = ("text", "customer_id")
_OUTPUTS = ("label", "probabilities", "model_version", "prediction_id")


class _ProtocolRoute(APIRoute):
    """A route whose errors have the protocol's shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def in_shape(request: Request) -> Response:
            try:
                return await handle(request)
            except Problem as problem:
                return refusal(problem)
            except HTTPException as error:
                return refusal(Problem(HTTPStatus(error.status_code), str(error.detail), headers=error.headers))

        return in_shape


def refusal(problem: Problem) -> Response:
    """A problem in the protocol's shape."""
    return JSONResponse({"error": problem.detail}, problem.status, problem.headers)


def router(service: EndpointService, guarded: Sequence[Any]) -> APIRouter:
    """The protocol's routes; `guarded`: what an inference request depends on (its token)."""
    routes = APIRouter(prefix=PREFIX, route_class=_ProtocolRoute, tags=["Open Inference Protocol"])
    _add_state_routes(routes, service)
    body = {"content": {"application/json": {"schema": {"type": "object"}, "example": _EXAMPLE}}}
    errors = protocol_errors(400, 401, 404, 413, 415, 422, *ANYWHERE)

    async def infer(model: ModelName, request: Request) -> Response:
        """Classify the rows of `text`; JSON or binary tensors."""
        return await _infer(service.model(model), service.model(model).predict, request, None)

    async def infer_version(model: ModelName, version: VersionNumber, request: Request) -> Response:
        """The same by the stable version alone, outside of any rollout."""
        asked = service.model(model)
        _must_be_stable(asked, version)
        return await _infer(asked, asked.predict_by_stable, request, version)

    for path, endpoint, parameters, more in (
        ("", infer, [arm_override.PARAMETER], protocol_errors(409)),
        ("/versions/{version}", infer_version, [], {}),
    ):
        routes.add_api_route(
            f"/models/{{model}}{path}/infer",
            endpoint,
            methods=["POST"],
            dependencies=guarded,
            responses=errors | more | reply(openapi.INFERENCE),
            openapi_extra={"requestBody": {"required": True, **body}, "parameters": parameters},
        )
    return routes


def _add_state_routes(routes: APIRouter, service: EndpointService) -> None:
    always, known = protocol_errors(*ANYWHERE), protocol_errors(404, *ANYWHERE)
    ready_or_not = reply({"ready": True}) | reply({"ready": False}, status=503)

    @routes.get("", responses=always | reply(openapi.SERVER))
    async def server() -> dict[str, Any]:
        """Name and version of this server, and the extensions that it knows."""
        version = installed_version("mlops-assets")
        return {"name": "mlops-assets", "version": version, "extensions": ["binary_tensor_data"]}

    @routes.get("/health/live", responses=always | reply({"live": True}))
    async def live() -> dict[str, Any]:
        """Whether the server answers at all."""
        return {"live": True}

    @routes.get("/health/ready", responses=always | ready_or_not)
    async def ready() -> Response:
        """Whether every model has a version that answers; 503 if not."""
        return _readiness(bool(service.health()["ready"]))

    @routes.get("/models/{model}", responses=known | reply(openapi.METADATA))
    async def metadata(model: ModelName) -> dict[str, Any]:
        """Inputs and outputs of a model; `versions` are those that can be asked by their number."""
        return _metadata(service.model(model))

    @routes.get("/models/{model}/versions/{version}", responses=known | reply(openapi.METADATA))
    async def version_metadata(model: ModelName, version: VersionNumber) -> dict[str, Any]:
        """The same, of the version that is named."""
        _must_be_stable(service.model(model), version)
        return _metadata(service.model(model))

    @routes.get("/models/{model}/ready", responses=known | ready_or_not)
    async def model_ready(model: ModelName) -> Response:
        """Whether the model has a version that answers; 503 if not."""
        return _readiness(service.model(model).stable.current is not None)

    @routes.get("/models/{model}/versions/{version}/ready", responses=known | ready_or_not)
    async def version_ready(model: ModelName, version: VersionNumber) -> Response:
        """Whether this version answers; 404 if not."""
        _must_be_stable(service.model(model), version)
        return _readiness(True)


async def _infer(model: ModelService, predict: Predict, request: Request, version: str | None) -> Response:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a compressed body is not supported; send it as it is")
    asked, columns = read_request(await request.body(), request.headers.get(HEADER_LENGTH))
    wanted = _wanted(asked)
    replies = _all_answered(await answer_all(predict, _requests(model, _instances(asked, columns))))
    by = {str(reply.model_version) for reply in replies}
    if version is not None and by != {version}:
        raise _not_now(model, version)
    head: dict[str, Any] = {"model_name": model.spec.name}
    if len(by) == 1:  # a split request has several; the output `model_version` tells them row by row
        head["model_version"] = by.pop()
    if asked.id is not None:
        head["id"] = asked.id
    outputs = _outputs(replies, model.spec.data.labels)
    content, headers = write_reply(head, [outputs[name] for name in wanted], {n for n, b in wanted.items() if b})
    return Response(content, headers=headers)


def _instances(asked: InferRequest, columns: dict[str, list[str]]) -> list[dict[str, Any]]:
    """One predict request per row; an empty `customer_id` is none."""
    for tensor in asked.inputs:
        if tensor.name not in _INPUTS:
            raise bad_request(f"there is no input {tensor.name!r}; there are: {', '.join(_INPUTS)}")
        rows = len(columns[tensor.name])
        if tensor.datatype != "BYTES" or tensor.shape != [rows]:
            raise bad_request(f"input {tensor.name!r} must be BYTES of shape [n], n its number of values ({rows})")
    texts = columns.get("text")
    if texts is None:
        raise bad_request("the input 'text' is missing")
    if not 1 <= len(texts) <= MAX_INSTANCES:
        raise bad_request(f"a request may have 1 to {MAX_INSTANCES} rows; this one has {len(texts)}")
    customers = columns.get("customer_id", [""] * len(texts))
    if len(customers) != len(texts):
        raise bad_request(f"there are {len(texts)} rows of 'text', but {len(customers)} of 'customer_id'")
    return [
        {"text": text, "customer_id": customer or None, "return_probabilities": True}
        for text, customer in zip(texts, customers, strict=True)
    ]


def _requests(model: ModelService, instances: Sequence[dict[str, Any]]) -> list[PredictRequest]:
    """The rows as requests. One that is faulty is the request's fault, before any other is answered and logged."""
    requests = []
    for row, instance in enumerate(instances):
        try:
            requests.append(PredictRequest.model_validate(instance))
            model.check_text(instance["text"])
        except ValidationError as error:
            raise _of_row(row, invalid(error.errors())) from error
        except Problem as problem:
            raise _of_row(row, problem) from problem
    return requests


def _wanted(asked: InferRequest) -> dict[str, bool]:
    """Names of the wanted outputs, in order, and whether each is to be binary."""
    default = asked.parameters.binary_data_output
    if not asked.outputs:
        return dict.fromkeys(_OUTPUTS, default)
    for output in asked.outputs:
        if output.name not in _OUTPUTS:
            raise bad_request(f"there is no output {output.name!r}; there are: {', '.join(_OUTPUTS)}")
    said = {output.name: output.parameters.binary_data for output in asked.outputs}
    return {name: default if binary is None else binary for name, binary in said.items()}


def _all_answered(answers: Sequence[PredictReply | Problem]) -> list[PredictReply]:
    """The replies; the protocol knows no answer in part, so one row's problem is the request's."""
    for row, answer in enumerate(answers):
        if isinstance(answer, Problem):
            raise _of_row(row, answer)
    return [answer for answer in answers if isinstance(answer, PredictReply)]


def _of_row(row: int, problem: Problem) -> Problem:
    return Problem(problem.status, f"row {row}: {problem.detail}", headers=problem.headers)


def _outputs(replies: Sequence[PredictReply], labels: Sequence[str]) -> dict[str, OutputTensor]:
    """All outputs by name; probabilities are in the declared order of labels, 0 for one a version does not know."""
    n = len(replies)
    rows = [(reply.probabilities or {}).get(label, 0.0) for reply in replies for label in labels]
    outputs = (
        OutputTensor("label", "BYTES", (n,), [reply.label for reply in replies]),
        OutputTensor("probabilities", "FP32", (n, len(labels)), rows),
        OutputTensor("model_version", "INT64", (n,), [reply.model_version for reply in replies]),
        OutputTensor("prediction_id", "BYTES", (n,), [reply.prediction_id for reply in replies]),
    )
    return {output.name: output for output in outputs}


def _metadata(model: ModelService) -> dict[str, Any]:
    labels = list(model.spec.data.labels)
    current = model.stable.current
    return {
        "name": model.spec.name,
        "versions": [str(current.ref.version)] if current else [],
        "platform": "mlflow_pyfunc" if current and current.ref.form == "mlflow" else "onnxruntime_onnx",
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in _INPUTS],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {
                "name": "probabilities",
                "datatype": "FP32",
                "shape": [-1, len(labels)],
                "parameters": {"labels": labels},
            },
            {"name": "model_version", "datatype": "INT64", "shape": [-1]},
            {"name": "prediction_id", "datatype": "BYTES", "shape": [-1]},
        ],
    }


def _must_be_stable(model: ModelService, version: str) -> None:
    """A canary cannot be asked by its number: it answers its share of customers, and testers who name the arm."""
    current = model.stable.current
    if current is None or str(current.ref.version) != version:
        raise _not_now(model, version)


def _not_now(model: ModelService, version: str) -> Problem:
    current = model.stable.current
    now = f"version {current.ref.version} does" if current else "none does yet"
    detail = f"version {version} of {model.spec.name} does not answer by its number now; {now}"
    return Problem(HTTPStatus.NOT_FOUND, detail)


def _readiness(state: bool) -> Response:
    return JSONResponse({"ready": state}, HTTPStatus.OK if state else HTTPStatus.SERVICE_UNAVAILABLE)


_EXAMPLE = {
    "id": "42",
    "inputs": [
        {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["Where is my parcel?"]},
        {"name": "customer_id", "datatype": "BYTES", "shape": [1], "data": ["C-17"]},
    ],
    "outputs": [{"name": "label"}, {"name": "probabilities"}],
}
