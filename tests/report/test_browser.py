"""The reports in a real browser: they ask the network for nothing, and what they promise can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_assets.report.comparison import compare
from mlops_assets.report.drift_page import comparison_page
from mlops_assets.report.quality_page import write_quality_page
from mlops_assets.settings import ModelHome
from mlops_assets.spec import DriftSpec, ModelSpec
from tests.data.factories import messages
from tests.report.factories import shop
from tests.report.reader import HOSTILE
from tests.report.test_quality_page import ingest

CHROMIUM = Path("/usr/bin/chromium")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no browser at {CHROMIUM}"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def drift_report(tmp_path: Path) -> Path:
    path = tmp_path / "drift.html"
    june = shop("june", 1, country=[HOSTILE] * 400)
    path.write_text(comparison_page(compare(shop("may", 0), june, DriftSpec(alpha=0.05))))
    return path


@pytest.fixture
def quality_report(tmp_path: Path) -> Path:
    home = ModelHome(tmp_path / "intents")
    ingest(home, messages(100, text=[*[f"order {n}" for n in range(99)], f"{HOSTILE} {'y' * 600}"]))
    return write_quality_page(home, ModelSpec(name="intents"))


class Opened:
    """A page, every request that it made, and everything it complained about."""

    def __init__(self, browser: playwright.Browser, path: Path, width: int = 1100, scheme: str = "light") -> None:
        self.context = browser.new_context(
            offline=True, viewport={"width": width, "height": 900}, color_scheme=scheme, device_scale_factor=1
        )
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto(path.as_uri())


@pytest.mark.parametrize("report", ["drift_report", "quality_report"])
def test_nothing_is_asked_of_the_network_and_nothing_runs(
    browser: playwright.Browser, report: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(report)
    opened = Opened(browser, path)
    assert opened.requests == [path.as_uri()]
    assert opened.complaints == []


def test_verdict_and_plots_are_there_to_be_seen(browser: playwright.Browser, drift_report: Path) -> None:
    page = Opened(browser, drift_report).page
    assert page.locator("h1").inner_text() == "1 of 4 columns drifted, country most"
    drifted = page.locator("article.fail")
    assert drifted.count() == 1
    assert HOSTILE in drifted.locator("svg title").all_text_contents()
    plot = drifted.locator("svg").first.bounding_box()
    assert plot is not None
    assert plot["width"] > 200
    assert plot["height"] > 40
    assert page.locator("table.heat td").first.is_visible()


def test_the_data_quality_report_shows_its_days_and_its_quarantine(
    browser: playwright.Browser, quality_report: Path
) -> None:
    page = Opened(browser, quality_report).page
    assert page.locator("h1").inner_text() == "99 messages keep the contract; 1 was set aside"
    assert page.locator("svg.wide").count() >= 4
    assert page.get_by_text("must have 1 to 512 characters").is_visible()


@pytest.mark.parametrize("report", ["drift_report", "quality_report"])
def test_a_phone_scrolls_down_and_not_sideways(
    browser: playwright.Browser, report: str, request: pytest.FixtureRequest
) -> None:
    page = Opened(browser, request.getfixturevalue(report), width=375).page
    assert page.evaluate("document.documentElement.scrollWidth") == 375


def test_light_and_dark_follow_the_reader(browser: playwright.Browser, drift_report: Path) -> None:
    colours = [
        Opened(browser, drift_report, scheme=scheme).page.evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert colours == ["rgb(250, 249, 246)", "rgb(19, 22, 25)"]
