"""Errors as RFC 9457 problem documents: what a caller did that cannot be served, and how to mend it.

Every reply that is not a success is made here, so that none carries a stack trace. Which situation is
a problem is decided by the code that raises `Problem`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """A request that cannot be served; becomes the reply.

    Args:
        status: HTTP status code.
        detail: what is wrong with this request and how to mend it.
        errors: one entry per faulty field, ``{"field": ..., "detail": ...}``.
        headers: extra reply headers, e.g. ``Retry-After``.
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        """The reply of this problem."""
        return JSONResponse(
            self.document(), status_code=self.status.value, media_type=MEDIA_TYPE, headers=self.headers or None
        )

    def document(self) -> dict[str, Any]:
        """The members of RFC 9457 section 3.1, and `errors` where fields are at fault.

        >>> Problem(HTTPStatus.NOT_FOUND, "no such model").document()
        {'type': 'about:blank', 'title': 'Not Found', 'status': 404, 'detail': 'no such model'}
        """
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = [dict(error) for error in self.errors]
        return document


def invalid(faults: Sequence[Mapping[str, Any]], skip: int = 0) -> Problem:
    """The problem of fields that pydantic refused, without the values that were sent.

    Args:
        faults: as a validation error's `errors()` gives them.
        skip: leading parts of each location that are no part of the body.
    """
    errors = [
        {"field": ".".join(str(part) for part in fault["loc"][skip:]) or "body", "detail": str(fault["msg"])}
        for fault in faults
    ]
    detail = "; ".join(f"{error['field']}: {error['detail']}" for error in errors)
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)
