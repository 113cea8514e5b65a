"""A real HTTP server of the standard library in a thread, for tests that stand where another service stands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import TypeVar

Server = TypeVar("Server", bound=HTTPServer)

_POLL_SECONDS = 0.01  # at the end, it is this long until the server notices


class QuietHandler(BaseHTTPRequestHandler):
    """Answers whole documents and keeps the test's output clean."""

    protocol_version = "HTTP/1.1"

    def say(self, content: bytes, status: int = 200) -> None:
        """Answer this."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def listening(server: Server) -> Iterator[Server]:
    """The server, answering until the block ends."""
    with server:
        thread = Thread(target=server.serve_forever, args=(_POLL_SECONDS,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
