"""The documentation in a real browser, without the internet: it shows every route, and asks nobody but the endpoint."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from mlops_assets.ports import free_port
from mlops_assets.serving.docs_page import add_docs
from tests.serving.world import wait_until

CHROMIUM = Path("/usr/bin/chromium")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no browser at {CHROMIUM}"),
]


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The application on a port of its own."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def documented() -> FastAPI:
    app = FastAPI(title="a test", docs_url=None, redoc_url=None)
    add_docs(app)

    @app.get("/greeting")
    async def greeting(name: str) -> str:
        """Say hello."""
        return f"hello, {name}"

    return app


def test_a_route_is_shown_and_can_be_tried_under_a_policy_that_lets_nothing_in() -> None:
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with served(documented()) as address, playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        page = browser.new_page()
        page.set_default_timeout(10_000)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: line.type == "error" and complaints.append(line.text))  # what the policy stops
        page.on("request", lambda asked: asked.url.startswith((address, "data:")) or complaints.append(asked.url))
        policy = page.goto(f"{address}/docs").headers["content-security-policy"]
        page.get_by_role("button", name="GET /greeting Greeting").click()
        page.get_by_text("Say hello.").wait_for()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_placeholder("name").fill("Ada")
        page.get_by_role("button", name="Execute").click()
        page.get_by_text('"hello, Ada"').first.wait_for()
        browser.close()
    assert complaints == []
    assert policy.startswith("default-src 'none'; script-src 'self' 'sha256-")
