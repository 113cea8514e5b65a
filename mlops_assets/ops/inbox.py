"""Puts a file into an inbox, whole or not at all."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

from mlops_assets.data.tables import SUFFIXES, is_table


class InboxRefused(ValueError):
    """A file that no sensor would ever look at, or whose name is taken; the message says what is allowed."""


def put(source: Path, inbox: Path, *, replace: bool = False) -> Path:
    """Copy `source` into `inbox` under its own name; the sensors see it only once it is complete.

    A day is always computed from all files that ever came in, so one is replaced only where that is asked for.

    Raises:
        InboxRefused: it is no file, its suffix is that of no table, or another file of its name is there.
    """
    if not source.is_file():
        raise InboxRefused(f"{source} is not a file")
    if not is_table(source):
        raise InboxRefused(f"{source} is no table: the suffix must be one of {', '.join(SUFFIXES)}")
    inbox.mkdir(parents=True, exist_ok=True)
    target = inbox / source.name
    if target.exists() and not replace and not filecmp.cmp(source, target, shallow=False):
        raise InboxRefused(
            f"{target} is there already, with other rows, which would be lost: give {source.name} another name, "
            "or --replace if it is the mended version of that file"
        )
    draft = inbox / f".{source.name}.part"
    shutil.copyfile(source, draft)
    draft.replace(target)
    return target
