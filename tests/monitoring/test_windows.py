"""One document per kind and day: kept, replaced, and read back in the order of the days."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

from mlops_assets.monitoring.windows import latest_windows, read_window, read_windows, window_path, write_window
from mlops_assets.verdict import Verdict

DAY = date(2026, 3, 1)


def test_a_document_comes_back_with_its_day(tmp_path: Path) -> None:
    write_window(tmp_path, "drift", DAY, {"verdict": Verdict.FAIL, "effect": np.float64(0.25)})
    assert read_window(tmp_path, "drift", DAY) == {"day": "2026-03-01", "verdict": "fail", "effect": 0.25}


def test_a_moment_and_its_day_are_the_same_window(tmp_path: Path) -> None:
    assert window_path(tmp_path, "drift", DAY) == window_path(tmp_path, "drift", datetime(2026, 3, 1, tzinfo=UTC))


def test_a_day_without_document_is_none(tmp_path: Path) -> None:
    assert read_window(tmp_path, "drift", DAY) is None
    assert read_windows(tmp_path, "drift") == []


def test_kinds_are_apart_and_days_are_in_order(tmp_path: Path) -> None:
    for day in (12, 2, 5):
        write_window(tmp_path, "drift", DAY.replace(day=day), {})
    write_window(tmp_path, "quality", DAY, {})
    assert [window["day"] for window in read_windows(tmp_path, "drift")] == ["2026-03-02", "2026-03-05", "2026-03-12"]
    assert [window["day"] for window in latest_windows(tmp_path, "drift", 2)] == ["2026-03-05", "2026-03-12"]


def test_the_same_document_again_leaves_the_same_bytes(tmp_path: Path) -> None:
    first = write_window(tmp_path, "drift", DAY, {"b": 1, "a": 2}).read_bytes()
    assert write_window(tmp_path, "drift", DAY, {"a": 2, "b": 1}).read_bytes() == first
