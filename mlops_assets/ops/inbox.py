"""Puts a file into a model's inbox, whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path


def put(source: Path, inbox: Path) -> Path:
    """Copy `source` into `inbox` under its own name; the sensors see it only once it is complete."""
    inbox.mkdir(parents=True, exist_ok=True)
    target = inbox / source.name
    draft = inbox / f".{source.name}.part"
    shutil.copyfile(source, draft)
    draft.replace(target)
    return target
