"""A tester's choice: the header that sends one request to the arm it names, for whoever has the admin token.

Here the header is checked and handed on to whoever answers the request; a request without it costs one pass over its
headers. What such a request means, and that it counts for nothing, is `model_service`'s matter.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlops_assets.serving.tally import Arm
from mlops_assets.tokens import matches

NAME = "X-Mlops-Arm"
HEADER = NAME.lower().encode()
_ARMS: dict[bytes, Arm] = {b"stable": "stable", b"canary": "canary"}

PARAMETER: dict[str, Any] = {
    "name": NAME,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "enum": ["stable", "canary"], "examples": ["canary"]},
    "description": "For testers, with the admin token as bearer: send this request to this arm, whoever the customer "
    "is. It is logged as overridden and counts for no rollout, metric or monitor. 409 where there is no canary.",
}
"""The header as OpenAPI describes a parameter."""

_chosen: ContextVar[Arm | None] = ContextVar("chosen_arm", default=None)


def chosen_arm() -> Arm | None:
    """The arm that the present request names, if it names one."""
    return _chosen.get()


class ArmOverride:
    """Take the header, or refuse it: 401 without an admin token, 422 for an arm that there is not.

    Args:
        admin_tokens: hashes of the tokens that may.
    """

    def __init__(self, app: ASGIApp, admin_tokens: Collection[str]) -> None:
        self._app = app
        self._admin_tokens = admin_tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = [value for name, value in scope.get("headers", ()) if name == HEADER]
        if not named:
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope, named)
        if refusal is not None:

            async def refused() -> Message:  # where a body is read, so that each route's errors have its own shape
                raise refusal

            await self._app(scope, refused, send)
            return
        token = _chosen.set(_ARMS[named[0]])
        try:
            await self._app(scope, receive, send)
        finally:
            _chosen.reset(token)

    def _refusal(self, scope: Scope, named: Sequence[bytes]) -> HTTPException | None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        if scheme.lower() != b"bearer" or not matches(token.strip().decode("latin-1"), self._admin_tokens):
            detail = f"{NAME} needs the admin token: `Authorization: Bearer <token>`"
            return HTTPException(HTTPStatus.UNAUTHORIZED, detail, {"WWW-Authenticate": "Bearer"})
        if len(named) != 1 or named[0] not in _ARMS:
            return HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"{NAME} must be one of: stable, canary")
        return None
