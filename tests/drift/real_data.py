"""Where the tests find real data; they skip with the reason where it is absent."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2].parent / "shared" / "data"


def real_file(name: str) -> Path:
    """A file of the real data sets, or a skipped test."""
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"real data {name} is not beside this checkout ({ROOT})")
    return path
