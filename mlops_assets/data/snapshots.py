"""Immutable data sets: a parquet file named by the digest of its content, and a manifest beside it.

A digest says which rows a decision saw, whatever order they came in. The one change there is takes rows out for good
and records itself beside them. What the rows mean and how the manifest is filled is left to the caller.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from mlops_assets.data.tables import UnreadableFile, read_table, write_table
from mlops_assets.storage import read_json, write_json

_LATEST = "latest.json"


class SnapshotMissing(LookupError):
    """No snapshot of that digest is in the folder."""


class SnapshotCorrupt(ValueError):
    """A snapshot's file no longer holds what its name says; restore it from a copy or delete it."""


@dataclass(frozen=True)
class Forgotten:
    """Rows that were taken out of a snapshot: when (ISO, UTC), how many, and the digest of what is left."""

    at: str
    rows: int
    digest: str


@dataclass(frozen=True)
class Snapshot:
    """One immutable data set.

    Attributes:
        digest: SHA-256 of columns, types and rows as written, as hex; the order of the rows does not matter.
        rows: how many were written.
        manifest: What the first writer said about it; not part of the digest.
        forgotten: what was taken out since, oldest first.
    """

    digest: str
    path: Path
    rows: int
    manifest: Mapping[str, Any] = field(hash=False)
    forgotten: tuple[Forgotten, ...] = ()

    @property
    def content(self) -> str:
        """Digest of the rows that are left."""
        return self.forgotten[-1].digest if self.forgotten else self.digest

    def read(self) -> pl.DataFrame:
        """The rows that are left, checked against the digest on record for them.

        Raises:
            SnapshotCorrupt: the file is broken or holds other rows.
        """
        try:
            frame = read_table(self.path)
        except UnreadableFile as error:
            raise SnapshotCorrupt(f"snapshot {self.digest[:12]}: {error}") from error
        found = content_digest(frame)
        if found != self.content:
            raise SnapshotCorrupt(f"{self.path} holds the content {found[:12]}, not {self.content[:12]}")
        return frame


def write_snapshot(folder: Path, frame: pl.DataFrame, manifest: Mapping[str, Any]) -> Snapshot:
    """Keep `frame` as the folder's latest snapshot; the same content again is not written twice.

    Repeated content keeps the file and manifest of its first time, and becomes the latest again. Safe to repeat
    after a crash at any point.
    """
    digest = content_digest(frame)
    document = _manifest_path(folder, digest)
    if not document.exists():
        write_table(_data_path(folder, digest), frame)
        write_json(document, {"digest": digest, "rows": frame.height, "manifest": dict(manifest)})
    if latest_digest(folder) != digest:
        write_json(folder / _LATEST, {"digest": digest})
    return load_snapshot(folder, digest)


def load_snapshot(folder: Path, digest: str) -> Snapshot:
    """The snapshot of that digest; its rows are read by `Snapshot.read`.

    Raises:
        SnapshotMissing: there is none.
    """
    path = _manifest_path(folder, digest)
    if not path.exists():
        present = sorted(p.stem[:12] for p in folder.glob("*.parquet"))
        raise SnapshotMissing(f"no snapshot {digest[:12]} in {folder}; there are: {', '.join(present) or 'none'}")
    document = read_json(path)
    forgotten = tuple(Forgotten(**entry) for entry in document.get("forgotten", []))
    return Snapshot(digest, _data_path(folder, digest), document["rows"], document["manifest"], forgotten)


def forget_rows(folder: Path, digest: str, gone: pl.Expr, at: datetime) -> int:
    """Take the rows out of a snapshot for which `gone` holds, for good; returns how many.

    The snapshot keeps its name, and its manifest says from then on when how many rows went and which content is
    left. That is written first: after a crash between the two, the same call again finishes. A file that did not
    hold what it should loses the rows too, and stays corrupt.

    Raises:
        SnapshotMissing: there is none.
        UnreadableFile: the file is broken; nothing was changed.
    """
    snapshot = load_snapshot(folder, digest)
    frame = read_table(snapshot.path)
    left = frame.filter(~gone.fill_null(False))
    rows = frame.height - left.height
    if rows:
        entry = Forgotten(at.isoformat(), rows, content_digest(left))
        known = {snapshot.digest, *(earlier.digest for earlier in snapshot.forgotten)}
        if entry.digest != snapshot.content and content_digest(frame) in known:
            document = read_json(_manifest_path(folder, digest))
            told = [asdict(earlier) for earlier in (*snapshot.forgotten, entry)]
            write_json(_manifest_path(folder, digest), {**document, "forgotten": told})
        write_table(snapshot.path, left)
    return rows


def latest_snapshot(folder: Path) -> Snapshot | None:
    """The snapshot written last; None where there is none yet."""
    digest = latest_digest(folder)
    return None if digest is None else load_snapshot(folder, digest)


def latest_digest(folder: Path) -> str | None:
    """Digest of the snapshot written last; None where there is none yet."""
    path = folder / _LATEST
    return str(read_json(path)["digest"]) if path.exists() else None


def content_digest(frame: pl.DataFrame) -> str:
    """SHA-256 of columns, types and rows, independent of the order of rows and columns and of library versions.

    >>> a = pl.DataFrame({"x": [1, 2], "y": ["p", None]})
    >>> content_digest(a) == content_digest(a.reverse().select("y", "x"))
    True
    """
    names = sorted(frame.columns)
    rows = pl.struct([_exact(frame[name]) for name in names], eager=True).struct.json_encode().sort()
    digest = hashlib.sha256(repr([(name, str(frame.schema[name])) for name in names]).encode())
    for chunk in rows.to_frame("row").iter_slices(100_000):
        digest.update("\n".join([*chunk["row"], ""]).encode())
    return digest.hexdigest()


def _exact(values: pl.Series) -> pl.Series:
    """Times as integers and floats as their bits, so that no printing rule can change the digest."""
    if values.dtype.is_float():
        return values.cast(pl.Float64).reinterpret(signed=True)
    return values.to_physical()


def _data_path(folder: Path, digest: str) -> Path:
    return folder / f"{digest}.parquet"


def _manifest_path(folder: Path, digest: str) -> Path:
    return folder / f"{digest}.json"
