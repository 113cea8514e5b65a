"""The rollout page in a real browser, against a real endpoint with a rollout: what it shows, and who may stop it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from mlops_assets.serving.rollout_page import rollout_page
from tests.serving.factories import MODEL, write_artefact
from tests.serving.held import NOON, HeldSplit
from tests.serving.load import Load
from tests.serving.world import POLICY, Endpoint, declare, new_endpoint, wait_until

CHROMIUM = Path("/usr/bin/chromium")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no browser at {CHROMIUM}"),
]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A canary that takes its time, under a light load."""
    endpoint = new_endpoint(tmp_path_factory.mktemp("endpoint"))
    declare(endpoint.settings.models_dir, MODEL, {**POLICY, "minutes": 10.0, "max_minutes": 60.0})
    endpoint.publish(partial(write_artefact, label="refund"), "production")
    endpoint.start()
    endpoint.admin("/clock", {"now": "2026-03-01T12:00:00Z"})
    endpoint.publish(partial(write_artefact, label="other"), "canary")
    try:
        with Load(endpoint):
            wait_until(lambda: endpoint.rollout()["phase"] == "progressing", 60)
            wait_until(lambda: endpoint.rollout()["counts"]["canary"]["requests"] > 0, 30)
            yield endpoint
    finally:
        assert endpoint.stop() == []


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        yield found
        found.close()


@pytest.fixture
def page(browser: playwright.Browser, endpoint: Endpoint, request: pytest.FixtureRequest) -> Iterator[playwright.Page]:
    """The page, which must neither complain nor ask anybody but the endpoint."""
    how = {"viewport": {"width": 1100, "height": 1200}, "color_scheme": "light", **getattr(request, "param", {})}
    with browser.new_context(**how) as context:
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda asked: asked.url.startswith(endpoint.settings.endpoint) or complaints.append(asked.url)
        )
        page.goto(f"{endpoint.settings.endpoint}/rollout")
        page.locator("#rollout").wait_for(state="visible")
        yield page
        assert complaints == []


def test_the_page_shows_the_rollout_and_updates_itself(page: playwright.Page) -> None:
    assert page.locator("h1").inner_text().startswith(f"{MODEL}: version 2 beside 1")
    assert page.locator("#phase").inner_text() == "progressing"
    assert re.search(r"Step 1 of 1\. Expected until the verdict: \d+ minutes\.", page.locator("#expected").inner_text())
    assert page.get_by_role("meter").count() == 4
    assert page.locator("#claims tr").count() == 6
    before = page.locator("#arms tr").nth(1).inner_text()
    page.wait_for_function("text => document.querySelectorAll('#arms tr')[1].innerText !== text", arg=before)


@pytest.mark.parametrize("page", [{"viewport": {"width": 375, "height": 800}}], indirect=True)
def test_a_phone_scrolls_down_and_not_sideways(page: playwright.Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") == 375


@pytest.mark.parametrize("page", [{"color_scheme": "dark"}], indirect=True)
def test_dark_follows_the_reader(page: playwright.Page) -> None:
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 22, 25)"


def test_an_ab_test_shows_its_comparison_and_whether_it_is_final(browser: playwright.Browser, tmp_path: Path) -> None:
    split = HeldSplit(tmp_path)
    split.serve(customers=400, hours=2)
    said = {"hours": 2}

    def describe(route: playwright.Route) -> None:
        route.fulfill(json=split.keeper.describe(NOON + timedelta(hours=said["hours"])))

    with browser.new_context() as context:
        page = context.new_page()
        page.route("http://test/", lambda route: route.fulfill(body=rollout_page("m"), content_type="text/html"))
        page.route("http://test/models/m/rollout", describe)
        page.goto("http://test/")
        page.locator("#ab-title", has_text="A/B test, not final").wait_for()
        assert "Expected until the verdict: 70.0 hours." in page.locator("#expected").inner_text()
        assert page.locator("#ab tr").nth(3).inner_text().split("\t")[0] == "correct"
        split.report(72)
        said["hours"] = 72
        page.locator("#ab-title", has_text="A/B test, at its end").wait_for()
        assert "95 % confidence" in page.locator("#ab-note").inner_text()
        assert page.locator("#phase").inner_text() == "waiting promotion"


def test_a_model_that_is_not_there_has_no_page(endpoint: Endpoint) -> None:
    assert endpoint.client.get(f"/models/{MODEL}/rollout/page").status_code == 200
    assert endpoint.client.get("/models/none/rollout/page").status_code == 404


def test_only_who_has_the_token_may_stop_the_canary(page: playwright.Page, endpoint: Endpoint) -> None:
    page.on("dialog", lambda dialog: dialog.accept())
    assert page.locator("#abort").is_hidden()
    for token, said in (("wrong", "needs"), (endpoint.settings.admin_secret(), "aborted: drill <b>")):
        page.locator("#token").fill(token)
        page.get_by_role("button", name="Enter").click()
        page.locator("#why").fill("drill <b>")
        page.get_by_role("button", name="Stop the canary").click()
        page.locator("#said", has_text=said).wait_for()
    page.locator("#phase", has_text="failed").wait_for()
    assert "stopped by hand: drill <b>" in page.locator("#history").inner_text()
    assert page.locator("#abort").is_hidden()
