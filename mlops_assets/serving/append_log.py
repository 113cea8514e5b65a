"""The append-only log: one JSON object per line, on disk before the caller goes on.

One `write` call with ``O_APPEND`` hands the line to the operating system, so it survives a kill -9 of
the process. The one change there is blanks whole lines where they stand. What a record means, and
reading it back, is left to others; a reader has to skip a line that is blank or was cut short.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from mlops_assets.serving.trouble import Trouble

SEGMENT_BYTES = 64 * 1024 * 1024


class LogUnavailable(OSError):
    """A record could not be written (disk full, folder gone); nothing may be answered that is not logged."""


class AppendLog:
    """Segments ``<writer>-<started>.ndjson`` in one folder, a new one each day (UTC); safe to use from several threads.

    >>> import tempfile
    >>> log = AppendLog(Path(tempfile.mkdtemp()), "replica")
    >>> log.append({"prediction_id": "p1"})
    >>> log.path.read_text()
    '{"prediction_id":"p1"}\\n'
    """

    def __init__(self, folder: Path, writer: str, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._writer = writer
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._handle: int | None = None
        self._written = 0
        self._day = 0
        self._torn = False
        self._unwritten = Trouble(f"the log in {folder} cannot be written")
        self.path = self._next_path()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record: times in ISO 8601, null for what is not a number.

        Raises:
            ValueError: the record holds something that JSON cannot.
            LogUnavailable: the record is not, or not wholly, on disk.
        """
        line = to_json(record, inf_nan_mode="null") + b"\n"
        with self._lock:
            try:
                self._write(line)
            except OSError as error:
                self._unwritten.met(error)
                raise LogUnavailable(error.errno, error.strerror or str(error), str(self.path)) from error
            self._unwritten.over()

    def close(self) -> None:
        """Close the segment; the next record opens a new one."""
        with self._lock:
            self._close()

    def _write(self, line: bytes) -> None:
        if self._handle is None or self._written >= self._segment_bytes or self._day != _today():
            self._open()
        assert self._handle is not None
        # After a torn line a newline first, so that one lost record does not take the next one with it.
        payload = b"\n" + line if self._torn else line
        self._torn = True
        if os.write(self._handle, payload) != len(payload):
            raise OSError(28, "the disk took only part of the record")
        self._torn = False
        self._written += len(payload)

    def _open(self) -> None:
        self._close()
        self._day = _today()
        self._folder.mkdir(parents=True, exist_ok=True)
        self.path = self._next_path()
        self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._written, self._torn = 0, False

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
        self._handle = None

    def _next_path(self) -> Path:
        return self._folder / f"{self._writer}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.ndjson"


def _today() -> int:
    """Days since the epoch, UTC: cheap enough to ask for every record."""
    return int(time.time()) // 86_400


def blank(segment: Path, gone: Callable[[bytes], bool]) -> int:
    """Overwrite the lines for which `gone` holds with blanks; returns how many.

    Nothing moves and the file keeps its length, so that neither the process that appends to it nor a reader that
    knows how far it has read is disturbed. On disk when this returns; repeated, it finds nothing.
    """
    found = at = 0
    with segment.open("r+b") as file:
        for line in file.read().splitlines(keepends=True):
            if not line.isspace() and gone(line):
                file.seek(at)
                file.write(b" " * len(line.rstrip(b"\n")))
                found += 1
            at += len(line)
        file.flush()
        os.fsync(file.fileno())
    return found
