"""The report of a demo: every step with its time, its verdict and where to look, also when the story breaks off."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from mlops_assets.demo.report import Report, StoryFailed
from mlops_assets.storage import read_json


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return Report(tmp_path / "demo" / "report.json", Console(file=io.StringIO(), width=200))


def said(report: Report) -> str:
    file = report.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_step_is_kept_with_its_verdict_time_and_evidence(report: Report) -> None:
    with report.step("the gate") as step:
        step.done("F1 0.95 on 2,000 rows", evidence=Path("gate.json"), page="http://localhost/gate")
    (kept,) = read_json(report.path)["steps"]
    assert {name: kept[name] for name in ("name", "verdict", "detail", "evidence", "page")} == {
        "name": "the gate",
        "verdict": "pass",
        "detail": "F1 0.95 on 2,000 rows",
        "evidence": "gate.json",
        "page": "http://localhost/gate",
    }
    assert kept["seconds"] >= 0
    assert "the gate" in said(report)
    assert "F1 0.95 on 2,000 rows" in said(report)


def test_a_step_that_breaks_is_kept_as_failed_and_goes_on_breaking(report: Report) -> None:
    with pytest.raises(StoryFailed, match="no drift"), report.step("drift"):
        raise StoryFailed("no drift was found")
    (kept,) = read_json(report.path)["steps"]
    assert (kept["verdict"], kept["detail"]) == ("fail", "StoryFailed: no drift was found")


def test_a_step_that_comes_out_badly_ends_the_story(report: Report) -> None:
    with pytest.raises(StoryFailed, match="quality: F1 fell"), report.step("quality") as step:
        step.done("F1 fell", good=False)
    (kept,) = read_json(report.path)["steps"]
    assert (kept["verdict"], kept["detail"]) == ("fail", "F1 fell")


def test_a_step_that_a_person_ends_says_so(report: Report) -> None:
    with pytest.raises(KeyboardInterrupt), report.step("ten ordinary days"):
        raise KeyboardInterrupt
    (kept,) = read_json(report.path)["steps"]
    assert (kept["verdict"], kept["detail"]) == ("fail", "interrupted")


def test_it_says_what_it_promises(report: Report) -> None:
    report.requests = {"sent": 10, "answered": 10, "failed": 0}
    report.versions = [{"version": 1, "arm": "stable", "f1": 0.95, "verdict": "promoted"}]
    report.quality = {
        "named": "messages of May",
        "rows": 290,
        "before": 0.42,
        "after": 0.78,
        "first_version": 1,
        "last_version": 2,
    }
    report.urls = {"asset graph": "http://localhost"}
    document = read_json(report.write())
    assert set(document) == {"seconds_total", "steps", "versions", "requests", "quality", "urls"}
    report.show()
    for fact in ("10 sent, 10 answered, 0 failed", "0.950", "promoted", "290 rows", "0.420", "0.780"):
        assert fact in said(report)
