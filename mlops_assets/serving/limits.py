"""What a request may weigh, and what a reply may reveal: two small ASGI layers around the routes.

The body limit works on the bytes as they come, whatever the headers claim. The outer layer turns any
exception into a problem document and a log line without the caller's data.
"""

from __future__ import annotations

import logging
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlops_assets.serving.problems import Problem

MAX_BODY_BYTES = 64 * 1024

log = logging.getLogger("mlops_assets.serving")


class BodyTooLarge(HTTPException):
    """More bytes than allowed have come in. An `HTTPException`, because FastAPI hides any other as a 400."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body may have at most {max_bytes} bytes")


class LimitBody:
    """Refuse a body of more than `max_bytes` with 413."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._max_bytes:
                raise BodyTooLarge(self._max_bytes)
            return message

        await self._app(scope, counted, send)


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
            log.exception("%s %s failed: %s", scope["method"], scope["path"], type(error).__name__)
            if started:
                raise
            problem = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the request failed here; the server's log says why")
            await problem.response()(scope, receive, send)
