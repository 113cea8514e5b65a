"""A disk that is full, for one folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def no_room_in(folder: Path) -> Iterator[None]:
    """Nothing can be written there; after that, what was there is there again."""
    away = folder.with_name(f"{folder.name} away")
    folder.mkdir(parents=True, exist_ok=True)
    folder.rename(away)
    folder.write_text("a file in the way")
    try:
        yield
    finally:
        folder.unlink()
        away.rename(folder)
