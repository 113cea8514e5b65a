"""The HTTP routes: what a caller may ask, in which words, and with which token.

Translates between HTTP and `endpoint.EndpointService`; it decides nothing about versions and keeps no
state. Every error leaves as a problem document.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from mlops_assets.serving import arm_override, open_inference, openapi, schemas
from mlops_assets.serving.arm_override import ArmOverride
from mlops_assets.serving.batch import answer_all, batch_reply
from mlops_assets.serving.docs_page import add_docs
from mlops_assets.serving.endpoint import EndpointService
from mlops_assets.serving.limits import LimitBody, NoTraces
from mlops_assets.serving.openapi import ANYWHERE, BODY, GUARDED, ModelName, problems, reply
from mlops_assets.serving.problems import Problem, invalid
from mlops_assets.serving.rollout_page import HEADERS, rollout_page
from mlops_assets.serving.tensors import PREFIX
from mlops_assets.serving.tracing import TraceContext
from mlops_assets.tokens import matches

_bearer = HTTPBearer(auto_error=False)
_Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def build_app(service: EndpointService) -> FastAPI:
    """The ASGI application over one endpoint service."""
    app = FastAPI(
        title="mlops-assets endpoint",
        version="1",
        description="Predictions, feedback and the rollout of each declared model.",
        docs_url=None,  # our own, below
        redoc_url=None,
        redirect_slashes=False,  # to the host that the caller names, whoever that is
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours says more; this asks at each request
        middleware=[
            Middleware(TraceContext),
            Middleware(NoTraces),
            Middleware(LimitBody),
            Middleware(ArmOverride, service.admin_tokens),
        ],
    )
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _validation_problem)
    _add_predict_routes(app, service)
    _add_rollout_routes(app, service)
    _add_rollout_pages(app, service)
    _add_info_routes(app, service)
    app.include_router(open_inference.router(service, _needs(service.predict_tokens)))
    add_docs(app)
    app.openapi = partial(openapi.describe, app)  # type: ignore[method-assign]
    return app


def _add_predict_routes(app: FastAPI, service: EndpointService) -> None:
    guarded = _needs(service.predict_tokens)
    options: dict[str, Any] = {
        "dependencies": guarded,
        "response_model_exclude_none": True,
        "openapi_extra": {"parameters": [arm_override.PARAMETER]},
    }
    default = problems(*GUARDED, *BODY, *ANYWHERE, 409)
    named = default | problems(404)

    @app.post("/predict", responses=default, **options)
    async def predict(body: schemas.PredictRequest) -> schemas.PredictReply:
        """Classify one message with the default model."""
        return await service.model(service.default_model).predict(body)

    @app.post("/models/{model}/predict", responses=named, **options)
    async def predict_model(model: ModelName, body: schemas.PredictRequest) -> schemas.PredictReply:
        """Classify one message with a named model."""
        return await service.model(model).predict(body)

    @app.post("/predict/batch", responses=default, **options)
    async def predict_batch(body: schemas.BatchRequest) -> schemas.BatchReply:
        """Classify some messages with the default model."""
        return batch_reply(await answer_all(service.model(service.default_model).predict, body.instances))

    @app.post("/models/{model}/predict/batch", responses=named, **options)
    async def predict_batch_model(model: ModelName, body: schemas.BatchRequest) -> schemas.BatchReply:
        """Classify some messages with a named model."""
        return batch_reply(await answer_all(service.model(model).predict, body.instances))

    @app.post("/feedback", status_code=HTTPStatus.ACCEPTED, responses=default, dependencies=guarded)
    async def feedback(body: schemas.FeedbackRequest) -> schemas.FeedbackReply:
        """Tell the true label of an earlier prediction of the default model."""
        return service.model(service.default_model).feedback(body)

    @app.post("/models/{model}/feedback", status_code=HTTPStatus.ACCEPTED, responses=named, dependencies=guarded)
    async def feedback_model(model: ModelName, body: schemas.FeedbackRequest) -> schemas.FeedbackReply:
        """Tell the true label of an earlier prediction of a named model."""
        return service.model(model).feedback(body)


def _add_rollout_routes(app: FastAPI, service: EndpointService) -> None:
    admin = _needs(service.admin_tokens)
    known, changing = problems(404, *ANYWHERE), problems(*GUARDED, *BODY, 409, *ANYWHERE)

    @app.get("/models/{model}/rollout", responses=known | reply(openapi.ROLLOUT))
    async def rollout(model: ModelName) -> dict[str, Any]:
        """The phase, arms, counts and evidence so far of the model's newest rollout."""
        return await service.rollout(model)

    @app.post("/models/{model}/rollout/seal", dependencies=admin, responses=changing | problems(404))
    async def seal(model: ModelName, body: schemas.SealRequest) -> schemas.RolloutAnswer:
        """Promotion, first half: after "sealed" the guard no longer aborts, and the alias may move."""
        return await service.seal(model, body.version, body.approval)

    @app.post("/models/{model}/rollout/abort", dependencies=admin, responses=changing | problems(404))
    async def abort(model: ModelName, body: schemas.AbortRequest) -> schemas.RolloutAnswer:
        """Stop the rollout of a version at once; the stable version answers everybody."""
        return await service.abort(model, body.version, body.reason)

    @app.post("/clock", dependencies=admin, responses=changing)
    async def move_clock(body: schemas.ClockRequest) -> schemas.ClockReply:
        """Move the replayed clock forward."""
        return schemas.ClockReply(now=service.move_clock(body.now))


def _add_rollout_pages(app: FastAPI, service: EndpointService) -> None:
    shown = problems(*ANYWHERE) | reply(openapi.PAGE, "text/html")

    @app.get("/rollout", response_class=HTMLResponse, responses=shown)
    async def page() -> HTMLResponse:
        """The rollout of the default model, for people."""
        return HTMLResponse(rollout_page(service.default_model), headers=HEADERS)

    @app.get("/models/{model}/rollout/page", response_class=HTMLResponse, responses=shown | problems(404))
    async def page_of_model(model: ModelName) -> HTMLResponse:
        """The rollout of a named model, for people."""
        return HTMLResponse(rollout_page(service.model(model).spec.name), headers=HEADERS)


def _add_info_routes(app: FastAPI, service: EndpointService) -> None:
    always = problems(*ANYWHERE)

    @app.get("/health", responses=always | reply(openapi.HEALTH))
    async def health() -> dict[str, Any]:
        """Versions in each arm, and the state of registry, feature store and guard."""
        return service.health()

    @app.get("/metrics", response_class=PlainTextResponse, responses=always | reply(openapi.METRICS, "text/plain"))
    async def metrics() -> PlainTextResponse:
        """Counts, latencies and rollouts of all replicas, for Prometheus."""
        return PlainTextResponse(await service.metrics())

    @app.get("/", responses=always | reply(openapi.INDEX))
    async def index() -> dict[str, Any]:
        """What there is to ask here."""
        return {
            "name": "mlops-assets endpoint",
            "default_model": service.default_model,
            "models": service.names,
            "routes": {
                "predict": "POST /predict, /models/{model}/predict",
                "batch": "POST /predict/batch, /models/{model}/predict/batch",
                "open inference protocol": "GET /v2, POST /v2/models/{model}/infer",
                "feedback": "POST /feedback, /models/{model}/feedback",
                "rollout": "GET /models/{model}/rollout",
                "rollout page": "GET /rollout, /models/{model}/rollout/page",
                "health": "GET /health",
                "metrics": "GET /metrics",
                "documentation": "GET /docs",
            },
        }


def _needs(hashes: Collection[str]) -> list[Any]:
    """What a route depends on that wants a token of these as a bearer; of none, and it costs a request nothing."""
    if not hashes:
        return []

    async def check(given: _Bearer) -> None:  # async: a plain function would cost each request a change of threads
        if given is None or not matches(given.credentials, hashes):
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "this route needs `Authorization: Bearer <token>`",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return [Depends(check)]


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"there is no route {request.url.path}; GET / lists them"
    elif isinstance(error.__cause__, UnicodeDecodeError):
        detail = "the body is not valid JSON: it must be UTF-8, and not compressed"
    problem = Problem(HTTPStatus(error.status_code), detail, headers=error.headers)
    return open_inference.refusal(problem) if request.url.path.startswith(f"{PREFIX}/") else problem.response()


async def _validation_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, bytes):  # FastAPI takes nothing but JSON apart
        detail = "the body must be JSON, and say so: `Content-Type: application/json`"
        return Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail).response()
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        why = faults[0].get("ctx", {}).get("error", "cannot be parsed")
        return Problem(HTTPStatus.BAD_REQUEST, f"the body is not valid JSON: {why}").response()
    return invalid(faults, skip=1).response()
