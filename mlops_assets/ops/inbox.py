"""Puts a file into a model's inbox, whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from mlops_assets.data.ingest import SUFFIXES


class InboxRefused(ValueError):
    """A file that no sensor would ever look at; the message says what is allowed."""


def put(source: Path, inbox: Path) -> Path:
    """Copy `source` into `inbox` under its own name; the sensors see it only once it is complete.

    Raises:
        InboxRefused: it is no file, or its suffix is that of no table.
    """
    if not source.is_file():
        raise InboxRefused(f"{source} is not a file")
    if source.suffix not in SUFFIXES:
        raise InboxRefused(f"{source} is no table: the suffix must be one of {', '.join(sorted(SUFFIXES))}")
    inbox.mkdir(parents=True, exist_ok=True)
    target = inbox / source.name
    draft = inbox / f".{source.name}.part"
    shutil.copyfile(source, draft)
    draft.replace(target)
    return target
