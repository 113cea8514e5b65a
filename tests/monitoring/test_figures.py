"""Plots that need no server: an image inside the markdown."""

from __future__ import annotations

import base64
from datetime import date, timedelta
from pathlib import Path

import pytest

from mlops_assets.monitoring.figures import drift_history, quality_history
from mlops_assets.monitoring.windows import write_window

DAY = date(2026, 3, 1)


def png(markdown: str) -> bytes:
    return base64.b64decode(markdown.partition("base64,")[2].removesuffix(")"))


@pytest.fixture
def windows(tmp_path: Path) -> Path:
    for n, verdict in enumerate(("pass", "fail", "insufficient_data")):
        results = [{"effect": 0.1 * n}, {"effect": None}]
        groups = {"feature": {"verdict": verdict, "results": results}}
        write_window(tmp_path, "drift", DAY + timedelta(days=n), {"groups": groups})
        expected = None if verdict == "fail" else {"f1_low": 0.8, "f1_weighted": 0.85, "f1_high": 0.9}
        f1 = None if verdict == "insufficient_data" else 0.9
        write_window(
            tmp_path, "quality", DAY + timedelta(days=n), {"verdict": verdict, "f1_weighted": f1, "estimate": expected}
        )
    return tmp_path


def test_drift_and_quality_are_drawn_as_images_within_the_markdown(windows: Path) -> None:
    for drawn in (drift_history(windows, "feature", DAY + timedelta(days=2)), quality_history(windows, DAY)):
        assert drawn.startswith("![")
        assert png(drawn).startswith(b"\x89PNG")


def test_a_group_that_a_day_lacks_and_days_without_any_are_drawn_too(windows: Path, tmp_path: Path) -> None:
    assert png(drift_history(windows, "embedding", DAY)).startswith(b"\x89PNG")
    assert png(drift_history(tmp_path / "none", "feature", DAY)).startswith(b"\x89PNG")


def test_a_day_is_drawn_as_it_was_known_then(windows: Path) -> None:
    before = drift_history(windows, "feature", DAY)
    write_window(windows, "drift", DAY + timedelta(days=9), {"groups": {}})
    assert drift_history(windows, "feature", DAY) == before
