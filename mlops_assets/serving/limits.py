"""What a request may weigh, and what a reply may reveal: two small ASGI layers around the routes.

The limits work on the bytes as they come, whatever the headers claim. The outer layer turns any
exception into a problem document and a log line without the caller's data.
"""

from __future__ import annotations

import logging
import re
import traceback
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlops_assets.serving.problems import Problem
from mlops_assets.serving.tensors import HEADER_LENGTH, PREFIX, json_length

MAX_BODY_BYTES = 64 * 1024
MAX_DEPTH = 16
_JSON_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)  # an end that is missing must not cost a second look

log = logging.getLogger("mlops_assets.serving")


class BodyTooLarge(HTTPException):
    """More bytes than allowed have come in. An `HTTPException`, because FastAPI hides any other as a 400."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body may have at most {max_bytes} bytes")


class BodyTooDeep(HTTPException):
    """The body nests deeper than allowed."""

    def __init__(self, max_depth: int) -> None:
        super().__init__(HTTPStatus.BAD_REQUEST, f"a body may nest at most {max_depth} levels deep")


def depth(body: bytes) -> int:
    """How deep brackets and braces nest in a JSON text, however broken it is.

    >>> depth(b'{"text": "[[[ is no list", "more": [1, {}]}')
    3
    """
    level = deepest = 0
    for byte in _JSON_STRING.sub(b"", body):
        if byte in b"[{":
            level += 1
            deepest = max(deepest, level)
        elif byte in b"]}":
            level -= 1
    return deepest


def may_be_too_deep(body: bytes, max_depth: int = MAX_DEPTH) -> bool:
    """Whether it is worth while to look how deep a body nests: nearly always it opens too little for that."""
    return body.count(b"[") + body.count(b"{") > max_depth


def without_data(error: BaseException) -> str:
    """What a log line may say of an exception: its type and where it happened, but no message, which may quote a text.

    >>> try:
    ...     raise ValueError("cannot parse 'my name is Ada'")
    ... except ValueError as error:
    ...     without_data(error).splitlines()[0]
    'ValueError'
    """
    return "".join([f"{type(error).__name__}\n", *traceback.format_tb(error.__traceback__)]).rstrip()


def unexpected(scope: Scope, error: Exception) -> Problem:
    """What a caller is told of an exception that nobody foresaw; the log gets the rest."""
    log.error("%s %r failed: %s", scope["method"], scope["path"], without_data(error))
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the request failed here; the server's log says why")


class LimitBody:
    """Refuse a body of more than `max_bytes` with 413, and one that nests deeper than `max_depth` with 400."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES, max_depth: int = MAX_DEPTH) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_depth = max_depth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken = bytearray()

        async def counted() -> Message:
            message = await receive()
            taken.extend(message.get("body", b""))
            if len(taken) > self._max_bytes:
                raise BodyTooLarge(self._max_bytes)
            if not message.get("more_body"):
                self._check_depth(_json_of(scope, bytes(taken)))
            return message

        await self._app(scope, counted, send)

    def _check_depth(self, body: bytes) -> None:
        if may_be_too_deep(body, self._max_depth) and depth(body) > self._max_depth:
            raise BodyTooDeep(self._max_depth)


def _json_of(scope: Scope, body: bytes) -> bytes:
    """The JSON in a body: all of it, or what stands before the binary tensors of the Open Inference Protocol."""
    if not scope["path"].startswith(f"{PREFIX}/"):
        return body  # the header means nothing there, and must not hide what is read as JSON all the same
    return body[: json_length(Headers(scope=scope).get(HEADER_LENGTH), len(body))]


class NoTraces:
    """Answer an unexpected exception with a bare 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            problem = unexpected(scope, error)
            if started:
                raise
            await problem.response()(scope, receive, send)
