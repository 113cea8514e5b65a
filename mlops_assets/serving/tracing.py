"""W3C trace context: the `traceparent` of a request is checked, handed back, and known to whoever logs it.

A header that is not as the recommendation says is treated as absent, as it asks for; nothing is traced
here, so a request without one stays without one. https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = b"traceparent"
# Version 00 has exactly these parts; a later one may add more behind a further dash.
_FORM = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(-.*)?"
)


@dataclass(frozen=True)
class Trace:
    """A trace that a request belongs to: its id (32 hexadecimal digits) and the caller's flags (2)."""

    trace_id: str
    flags: str

    def passed_on(self) -> str:
        """The `traceparent` of our own part of the trace."""
        return f"00-{self.trace_id}-{secrets.token_hex(8)}-{self.flags}"


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def trace_id() -> str | None:
    """The id of the trace that the present request belongs to, if any."""
    trace = _current.get()
    return trace.trace_id if trace else None


def traceparent() -> str | None:
    """What to hand to another process that takes part in the present request; None where it belongs to no trace."""
    trace = _current.get()
    return trace.passed_on() if trace else None


def parse(header: str) -> Trace | None:
    """The trace that a `traceparent` names, or None where it is not valid.

    >>> parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    Trace(trace_id='4bf92f3577b34da6a3ce929d0e0e4736', flags='01')
    >>> parse("00-00000000000000000000000000000000-00f067aa0ba902b7-01") is None  # all zeros: invalid
    True
    """
    found = _FORM.fullmatch(header.strip())
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found[5]):
        return None
    if set(found["trace"]) == {"0"} or set(found["parent"]) == {"0"}:
        return None
    return Trace(found["trace"], found["flags"])


class TraceContext:
    """Take the trace of a request and name it in the reply."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = [value for name, value in scope.get("headers", ()) if name == HEADER]
        trace = parse(given[0].decode("latin-1")) if len(given) == 1 else None
        if trace is None:
            await self._app(scope, receive, send)
            return

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (HEADER, trace.passed_on().encode())]}
            await send(message)

        token = _current.set(trace)
        try:
            await self._app(scope, receive, named)
        finally:
            _current.reset(token)
