"""Requests go past what Serve does to each of them, and Serve's own questions do not."""

from __future__ import annotations

import importlib

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from mlops_assets.serving import shortcut


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortcut, "_application", None)


def behind(serve: ASGIApp) -> httpx.AsyncClient:
    """A client of a port on which Serve put the middlewares around its own application."""
    for middleware in shortcut.middlewares():
        serve = middleware.cls(serve, *middleware.args, **middleware.kwargs)
    return httpx.AsyncClient(transport=httpx.ASGITransport(serve), base_url="http://replica")


@pytest.mark.anyio
async def test_our_application_answers_once_it_is_there_and_serve_before() -> None:
    async with behind(PlainTextResponse("serve")) as client:
        assert (await client.post("/predict")).text == "serve"
        shortcut.open_for(PlainTextResponse("ours"))
        assert (await client.post("/predict")).text == "ours"


@pytest.mark.anyio
async def test_serve_is_asked_itself_whether_its_replica_is_well() -> None:
    shortcut.open_for(PlainTextResponse("ours"))
    async with behind(PlainTextResponse("serve")) as client:
        assert (await client.get("/-/healthz")).text == "serve"


def test_ray_finds_the_middlewares_under_the_name_in_its_environment() -> None:
    (path,) = shortcut.SWITCH.values()
    module, _, name = path.rpartition(".")
    assert getattr(importlib.import_module(module), name) is shortcut.middlewares
