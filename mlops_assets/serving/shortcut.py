"""The short way from a replica's socket to our application: past what Ray Serve does to each request of its own.

Serve counts, times, labels and watches every request for its router and its autoscaler; we use neither here, and it
costs a fifth of a prediction. It lets an ASGI middleware of the user's stand in front of it, and ours answers all
but Serve's own routes. Serve still starts, checks, drains and replaces the replicas.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from mlops_assets.serving import whole_reply

# What Ray reads from the environment to find `middlewares`.
SWITCH = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}.middlewares"}

# Serve asks a replica under these paths whether it is well.
_SERVES_OWN = "/-/"

_application: ASGIApp | None = None


def open_for(application: ASGIApp) -> None:
    """From now on `application` answers what comes to this process's port."""
    global _application  # Serve makes the middleware by itself and hands it nothing of ours
    _application = application


def middlewares() -> list[Middleware]:
    """Called by Serve in each process that listens on a port, before it listens."""
    whole_reply.use()
    return [Middleware(Shortcut)]


class Shortcut:
    """Hands a request to our application, where this process has one."""

    def __init__(self, serve: ASGIApp) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = _application
        if ours is None or scope["type"] != "http" or scope["path"].startswith(_SERVES_OWN):
            await self._serve(scope, receive, send)
        else:
            await ours(scope, receive, send)
