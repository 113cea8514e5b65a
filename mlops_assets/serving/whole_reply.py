"""A reply leaves in one piece: its head waits for its body.

uvicorn writes head and body apart, and the first write alone wakes HAProxy. Were the process killed between the two,
a reply would have begun, which can neither be finished nor asked for again elsewhere; and each reply costs two
system calls and HAProxy two looks instead of one.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.auto import AutoHTTPProtocol

_HEAD = b"HTTP/1.1 "
# Not the head of a reply: the client waits for it before it sends its body.
_CONTINUE = b"HTTP/1.1 100 "


def use() -> None:
    """From now on each uvicorn that is started in this process, and names no protocol of its own, replies so."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:WholeReplyProtocol"


class WholeReplyProtocol(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
    """uvicorn's protocol over a transport that holds heads."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client has connected."""
        super().connection_made(cast(asyncio.Transport, _HeadHolder(transport, self.loop)))


class _HeadHolder:
    """A transport that sends the head of a reply with what follows it, or alone if nothing follows at once."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: bytes | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.write(head + data)
        elif data.startswith(_HEAD) and not data.startswith(_CONTINUE):
            self._head = data
            # A stream's body may take its time, and a reply without one has only its head.
            self._loop.call_soon(self._release)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._release()
        self._transport.close()

    def _release(self) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.write(head)
