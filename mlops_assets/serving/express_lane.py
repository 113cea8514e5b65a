"""The express lane: past FastAPI and all layers around it, for a good request of a route that takes one JSON body.

FastAPI resolves what a route depends on anew for each request, a dozen ASGI layers deep, which takes longer than
reading and writing the JSON. Where there is nothing to resolve, both go through pydantic here and the route's own
function is called in between. Whatever is out of the ordinary takes the long way, so a reply is FastAPI's to the byte.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

from fastapi import FastAPI, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import Message, Receive, Scope, Send

from mlops_assets.serving import arm_override, tracing
from mlops_assets.serving.limits import MAX_BODY_BYTES, may_be_too_deep, unexpected
from mlops_assets.serving.problems import Problem

_JSON = "application/json"
_PLAIN = _JSON.encode()
# Headers that a layer around the routes acts on.
_SPECIAL = frozenset({tracing.HEADER, arm_override.HEADER})


@dataclass(frozen=True)
class _Lane:
    """One route that takes `body` and nothing else."""

    body: type[BaseModel]
    endpoint: Callable[[Any], Awaitable[BaseModel]]
    exclude_none: bool


class ExpressLane:
    """An application, behind a lane for each of its routes that can have one."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        routes = [route for route in app.routes if isinstance(route, APIRoute)]
        self._lanes = {route.path: lane for route in routes if (lane := _lane(route)) is not None}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lane = self._lanes.get(scope["path"]) if scope["type"] == "http" else None
        if lane is None or scope["method"] != "POST" or not _is_plain(scope["headers"]):
            await self._app(scope, receive, send)
            return
        message = await receive()
        asked = _read(lane, message)
        if asked is None:
            await self._app(scope, _again(message, receive), send)
            return
        try:
            reply = await lane.endpoint(asked)
        except Problem as problem:
            response: Response = problem.response()
        except Exception as error:  # noqa: BLE001 - as the layer that hides traces does it
            response = unexpected(scope, error).response()
        else:
            response = Response(reply.model_dump_json(exclude_none=lane.exclude_none), media_type=_JSON)
        await response(scope, receive, send)


def _lane(route: APIRoute) -> _Lane | None:
    """The lane of a route whose endpoint takes a body and nothing else, and answers with a model."""
    if route.methods != {"POST"} or route.status_code is not None:
        return None
    needs = route.dependant
    others = needs.path_params + needs.query_params + needs.header_params + needs.cookie_params
    if others or needs.dependencies or len(needs.body_params) != 1:
        return None
    taken, answered = needs.body_params[0].field_info.annotation, route.response_model
    if not _is_model(taken) or not _is_model(answered):
        return None
    return _Lane(taken, route.endpoint, route.response_model_exclude_none)


def _is_model(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_plain(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request says that it is JSON, and nothing that a layer would have to look into."""
    kinds = 0
    for name, value in headers:
        if name == b"content-type":
            if value != _PLAIN:
                return False
            kinds += 1
        elif name in _SPECIAL:
            return False
    return kinds == 1


def _read(lane: _Lane, message: Message) -> BaseModel | None:
    """What is asked, or None where the long way has to say what is wrong, or to read on."""
    body = message.get("body", b"")
    if message["type"] != "http.request" or message.get("more_body") or len(body) > MAX_BODY_BYTES:
        return None
    if may_be_too_deep(body):
        return None
    try:
        return lane.body.model_validate_json(body)
    except ValidationError:
        return None


def _again(message: Message, receive: Receive) -> Receive:
    """What was received already, then what comes."""
    waiting = [message]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed
