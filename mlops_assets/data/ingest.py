"""From the inbox to validated days: what lies in `incoming/messages` becomes one parquet a day, or quarantine.

Every file that was ever put in stays there, and a day is always computed from all of them: that makes
a backfill give the same answer, and a repetition a no-op.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from mlops_assets.data.contract import TooManyBadRows, Validated, enforce_share
from mlops_assets.data.customer_features import validate_events
from mlops_assets.data.tables import BadTable, is_table, read_table, to_events, to_messages, write_table
from mlops_assets.data.validation import validate
from mlops_assets.settings import ModelHome
from mlops_assets.spec import DataSpec
from mlops_assets.storage import write_atomic
from mlops_assets.verdict import Verdict

_ANOTHER = re.compile(r"~\d+(?=\.\w+$)")  # what `_free_place` adds to a name


@dataclass(frozen=True)
class Batch:
    """One file of the inbox after its contract."""

    path: Path
    validated: Validated

    @property
    def first_day(self) -> datetime | None:
        """First moment of the earliest day with a good row; None when no row is good."""
        return _day(self.validated.good["event_timestamp"].min())

    @property
    def last_day(self) -> datetime | None:
        return _day(self.validated.good["event_timestamp"].max())


@dataclass(frozen=True)
class Rejected:
    """A file that could not be read as a table of messages at all."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Inbox:
    """All files of an inbox: the readable ones validated, in the order of their names."""

    batches: tuple[Batch, ...]
    rejected: tuple[Rejected, ...]

    def good(self) -> pl.DataFrame | None:
        """All good rows; None when there is not one readable file."""
        return pl.concat([batch.validated.good for batch in self.batches], how="diagonal") if self.batches else None


def inbox_files(folder: Path) -> list[Path]:
    """The files that wait in an inbox, by name."""
    return sorted(path for path in folder.glob("*") if is_table(path) and not path.name.startswith("."))


def read_messages(folder: Path, spec: DataSpec, now: datetime) -> Inbox:
    """Read and validate every file of messages as they are at `now`; an id may occur once over all of them."""
    known: set[str] = set()

    def check(frame: pl.DataFrame) -> Validated:
        validated = validate(to_messages(frame, spec.columns), spec, known_ids=known, now=now)
        known.update(validated.good["message_id"].to_list())
        return validated

    return _read(inbox_files(folder), check)


def read_events(folder: Path) -> Inbox:
    """Read and validate every file of customer events."""
    return _read(inbox_files(folder), lambda frame: validate_events(to_events(frame)))


def judge_share(inbox: Inbox, max_share: float) -> tuple[Verdict, str]:
    """Whether every file of an inbox has at most `max_share` (0..1) bad rows, and in what words.

    One bad file stops the line for all: what is wrong with it may be wrong with the others' source too.
    """
    if not inbox.batches:
        return Verdict.INSUFFICIENT_DATA, "there is no readable file in the inbox"
    for batch in inbox.batches:
        try:
            enforce_share(batch.validated, max_share)
        except TooManyBadRows as error:
            return Verdict.FAIL, f"{batch.path.name}: {error}"
    bad = sum(batch.validated.bad_rows for batch in inbox.batches)
    rows = sum(batch.validated.rows for batch in inbox.batches)
    return Verdict.PASS, f"{bad} of {rows} rows are quarantined, at most {max_share:.0%} of a file may be"


def set_aside(rejected: Iterable[Rejected], quarantine: Path) -> list[Path]:
    """Move unreadable files out of the inbox into `files` under `quarantine`, each with its reason beside it."""
    moved = []
    for file in rejected:
        target = _free_place(quarantine / "files" / file.path.name)
        write_atomic(target.with_name(f"{target.name}.reason.txt"), f"{file.reason}\n".encode())
        file.path.replace(target)
        moved.append(target)
    return moved


def not_mended(inbox: Inbox, quarantine: Path) -> list[str]:
    """Why files were set aside under `quarantine` of which the inbox still lacks a readable one of the same name."""
    names = {batch.path.name for batch in inbox.batches}
    return [
        f"{file.name}: {reason.read_text().strip()}"
        for reason in sorted((quarantine / "files").glob("*.reason.txt"))
        if (file := reason.with_name(reason.name.removesuffix(".reason.txt"))).exists()
        and _ANOTHER.sub("", file.name) not in names
    ]


def write_quarantine(inbox: Inbox, folder: Path) -> pl.DataFrame:
    """Keep every fault of every batch under `folder`, as ``<file>.parquet``; returns them all."""
    faults = []
    for batch in inbox.batches:
        bad = batch.validated.bad.with_columns(pl.all().cast(pl.String), file=pl.lit(batch.path.name))
        target = folder / f"{batch.path.name}.parquet"
        if bad.height:
            write_table(target, bad)
            faults.append(bad)
        else:
            target.unlink(missing_ok=True)  # the file was mended
    return pl.concat(faults, how="diagonal") if faults else pl.DataFrame()


def write_days(rows: pl.DataFrame, days: Sequence[datetime], folder: Path) -> dict[datetime, int]:
    """Replace the parquet of each of `days` by its rows; returns the row counts."""
    counts = {}
    for day in days:
        of_day = rows.filter(pl.col("event_timestamp").is_between(day, day + timedelta(days=1), closed="left"))
        counts[day] = of_day.height
        path = day_file(folder, day)
        if of_day.height:
            write_table(path, of_day.sort("event_timestamp", "message_id"))
        else:
            path.unlink(missing_ok=True)
    return counts


def day_file(folder: Path, day: datetime) -> Path:
    """Where the rows of one day lie."""
    return folder / f"{day.date().isoformat()}.parquet"


def file_day(path: Path) -> datetime:
    """The first moment of the day whose rows lie at `path`."""
    return datetime.fromisoformat(path.stem).replace(tzinfo=UTC)


def day_files(folder: Path) -> list[Path]:
    """The files of all days, oldest first."""
    return sorted(folder.glob("????-??-??.parquet"))


def read_days(folder: Path) -> pl.DataFrame | None:
    """The rows of all days; None when there is no day yet."""
    files = day_files(folder)
    return pl.concat([read_table(path) for path in files], how="diagonal_relaxed") if files else None


def known_rows(home: ModelHome) -> list[pl.DataFrame]:
    """The validated and the labelled days, in this order; what has no day yet is left out."""
    return [rows for folder in (home.validated, home.labelled) if (rows := read_days(folder)) is not None]


def _free_place(target: Path) -> Path:
    """`target`, or a numbered place beside it where an earlier file of that name is kept."""
    place, number = target, 1
    while place.exists():
        number += 1
        place = target.with_stem(f"{target.stem}~{number}")
    return place


def _read(files: Iterable[Path], check: Callable[[pl.DataFrame], Validated]) -> Inbox:
    batches, rejected = [], []
    for path in files:
        try:
            batches.append(Batch(path, check(read_table(path))))
        except BadTable as error:
            rejected.append(Rejected(path, str(error)))
    return Inbox(tuple(batches), tuple(rejected))


def _day(moment: object) -> datetime | None:
    if not isinstance(moment, datetime):
        return None
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)
