"""How a customer's rows leave each kind of file: tables, append-only logs, snapshots, files that are no table.

It knows formats and which column names whom. Which files a home has, and in which order they are to be cleaned,
is `forget`'s.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from mlops_assets.data.snapshots import forget_rows
from mlops_assets.data.tables import UnreadableFile, cast_values, plain_ids, read_table, write_table
from mlops_assets.monitoring.predictions import read_record
from mlops_assets.serving.append_log import blank
from mlops_assets.spec import Columns

COLUMNS = Columns()


@dataclass(frozen=True)
class Found:
    """What ties rows to a customer: the id, the messages (predictions among them) sent under it, and their texts."""

    customer: str
    messages: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()

    def more(self, messages: Iterable[Any], texts: Iterable[Any]) -> Found:
        """With further messages and texts; what is missing or no string is left out."""
        ids, said = ({value for value in values if isinstance(value, str)} for values in (messages, texts))
        return replace(self, messages=self.messages | ids, texts=self.texts | said)


@dataclass(frozen=True)
class Removed:
    """What went from one store: rows, files that changed or went, and files that cannot be searched."""

    store: str
    rows: int = 0
    files: int = 0
    unsearched: tuple[str, ...] = ()

    def and_of(self, rows: int) -> Removed:
        """With one more file from which so many rows went."""
        return replace(self, rows=self.rows + rows, files=self.files + (rows > 0))


def found_in_tables(paths: Iterable[Path], columns: Columns, found: Found) -> Found:
    """What the readable tables of messages among `paths` hold of the customer."""
    for path in paths:
        frame = _readable(path)
        if frame is not None and columns.customer_id in frame.columns:
            theirs = _sent_by(frame, columns.customer_id, found.customer)
            ids, texts = _ids(frame, columns.message_id), _strings(frame, columns.text)
            found = found.more(ids.filter(theirs), texts.filter(theirs))
    return found


def found_in_logs(segments: Iterable[Path], found: Found) -> Found:
    """What the prediction log holds of the customer."""
    for segment in segments:
        records = (read_record(line) for line in segment.read_bytes().splitlines() if line.strip())
        theirs = [record for record in records if record and record.get("customer_id") == found.customer]
        found = found.more((r["prediction_id"] for r in theirs), (r.get("text") for r in theirs))
    return found


def erase_from_tables(store: str, paths: Iterable[Path], found: Found, columns: Columns = COLUMNS) -> Removed:
    """Rewrite each table without the customer's rows; one of which nothing is left goes.

    A row counts as the customer's by its customer, and where a table has none, by its message. A file that is no
    such table goes whole where the id stands in it, since nobody can tell its rows apart.
    """
    removed = Removed(store)
    for path in paths:
        frame = _readable(path)
        column = next((c for c in (columns.customer_id, columns.message_id) if frame is not None and c in frame), None)
        if frame is None or column is None:
            removed = _erase_unreadable(path, found, removed)
            continue
        who = found.messages if column != columns.customer_id else [found.customer]
        left = frame.filter(~_is_one_of(frame, column, who))
        if left.is_empty():
            path.unlink()
        elif left.height < frame.height:
            write_table(path, left)
        removed = removed.and_of(frame.height - left.height)
    return removed


def erase_from_snapshots(store: str, folder: Path, found: Found, at: datetime) -> Removed:
    """Take the customer's rows out of every snapshot of a folder; each manifest says so from then on."""
    removed = Removed(store)
    for path in sorted(folder.glob("*.parquet")):
        try:
            rows = forget_rows(folder, path.stem, pl.col(COLUMNS.customer_id) == found.customer, at)
        except UnreadableFile:
            removed = replace(removed, unsearched=(*removed.unsearched, str(path)))
        else:
            removed = removed.and_of(rows)
    return removed


def erase_from_log(store: str, segments: Iterable[Path], column: str, values: Collection[str], found: Found) -> Removed:
    """Blank the records whose `column` is one of `values`, also in a segment that is being written.

    Lines that no process finished go too: nobody reads them, and whose they are cannot be said.
    """
    removed = Removed(store)
    for segment in segments:
        rows = 0

        def is_gone(line: bytes) -> bool:
            nonlocal rows
            record = read_record(line)
            if record is None:  # without an end it may still be on its way to the disk
                return line.endswith(b"\n") or _stands_in(line, found.customer)
            theirs = record.get(column) in values
            rows += theirs
            return theirs

        blank(segment, is_gone)
        removed = removed.and_of(rows)
    return removed


def erase_drafts(store: str, folders: Iterable[Path], before: datetime) -> Removed:
    """Remove what writers that were killed have left behind: ``.NAME.SUFFIX.`` and more, last written `before` then.

    One that is being written is younger, if `before` is no later than when the writers were seen to be at rest.
    """
    removed = Removed(store)
    for path in (path for folder in folders for path in folder.rglob(".*")):
        if Path(path.stem).suffix and path.is_file() and path.stat().st_mtime < before.timestamp():
            path.unlink()
            removed = replace(removed, files=removed.files + 1)
    return removed


def _erase_unreadable(path: Path, found: Found, removed: Removed) -> Removed:
    if _stands_in(path.read_bytes(), found.customer):
        path.unlink()
        return replace(removed, files=removed.files + 1)
    hidden = path.suffix.lower() == ".parquet"  # compressed
    return replace(removed, unsearched=(*removed.unsearched, str(path))) if hidden else removed


def _stands_in(content: bytes, customer: str) -> bool:
    """Whether an id stands in what cannot be parsed: as it is, or as JSON writes it, in UTF-8 or in ASCII."""
    escaped = (json.dumps(customer, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
    return any(form.encode() in content for form in (customer, *escaped))


def _readable(path: Path) -> pl.DataFrame | None:
    try:
        return read_table(path)
    except UnreadableFile:
        return None


def _sent_by(frame: pl.DataFrame, column: str, customer: str) -> pl.Series:
    return _is_one_of(frame, column, [customer])


def _is_one_of(frame: pl.DataFrame, column: str, values: Iterable[str]) -> pl.Series:
    """Rows with one of the ids, as they stand or as the data contract reads them."""
    wanted = list(values)
    return (_strings(frame, column).is_in(wanted) | _ids(frame, column).is_in(wanted)).fill_null(False)


def _ids(frame: pl.DataFrame, column: str) -> pl.Series:
    return cast_values(plain_ids(_column(frame, column)), pl.String())


def _strings(frame: pl.DataFrame, column: str) -> pl.Series:
    return cast_values(_column(frame, column), pl.String())


def _column(frame: pl.DataFrame, name: str) -> pl.Series:
    return frame[name] if name in frame.columns else pl.Series(name, [None] * frame.height, dtype=pl.String)
