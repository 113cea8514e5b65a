"""Durable small files: atomic replacement, locks, canonical JSON and content digests.

Everything that has to survive a crash is written here, so a reader sees the old content or the new,
never half of it. What the content means is left to the caller.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any


def write_atomic(path: Path, content: bytes) -> Path:
    """Replace `path` by `content` in one step, creating its folder; synced before the rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold a lock file, which makes look-then-write one step across the processes of this machine."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def to_json(document: Any) -> str:
    """Canonical JSON: sorted keys, ISO times, data classes as objects. NaN is refused, not written.

    >>> to_json({"b": 1, "a": float(2)})
    '{\\n  "a": 2.0,\\n  "b": 1\\n}'
    """
    return json.dumps(document, default=_encode, sort_keys=True, indent=2, allow_nan=False)


def write_json(path: Path, document: Any) -> Path:
    """Write `document` as canonical JSON, atomically."""
    return write_atomic(path, to_json(document).encode() + b"\n")


def read_json(path: Path) -> Any:
    """Read one JSON file; the error of a broken one names the file."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(document: Any) -> str:
    """SHA-256 of a document's canonical JSON, as hex."""
    return hashlib.sha256(to_json(document).encode()).hexdigest()


def _encode(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(value, "tolist"):  # a numpy scalar or array
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
