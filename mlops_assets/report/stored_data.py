"""What a model's stored data look like, day by day: volume, labels, texts, missing values, quarantine, windows.

Reads what the graph left in the model's home and counts; it validates nothing again. The days are the last 90, so
that the cost stays bounded whatever has piled up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from mlops_assets.data.ingest import day_files
from mlops_assets.monitoring.windows import read_windows
from mlops_assets.report.shapes import Band, Shape, of_numbers
from mlops_assets.settings import ModelHome

DAYS_SHOWN = 90
RECENT_DAYS = 7
NOT_KNOWN = "not known yet"
NO_TIME = "no readable time"
AHEAD = "in the future"
_COLUMNS = ("message_id", "customer_id", "text", "label", "event_timestamp", "label_timestamp")


@dataclass(frozen=True)
class Days:
    """Validated messages of consecutive days; each tuple has one entry per day of `names`.

    Attributes:
        names: ISO dates, oldest first; a day without messages is among them.
        labels: rows by label, and those whose label is not known yet.
        lengths: characters of the texts: 10th percentile, median, 90th; None on a day without any.
        delays: days until a label became known, of the labels known so far, in the same way.
        missing: share of missing values, of each column that lacks one on any day.
        recent_lengths: text lengths of the last week beside those before it.
    """

    names: tuple[str, ...]
    labels: Mapping[str, tuple[int, ...]]
    lengths: tuple[Band | None, ...]
    delays: tuple[Band | None, ...]
    missing: Mapping[str, tuple[float | None, ...]]
    recent_lengths: Shape | None


@dataclass(frozen=True)
class Fault:
    """One quarantined value."""

    file: str
    row: str
    column: str
    check: str
    reason: str
    value: str


@dataclass(frozen=True)
class Quarantine:
    """What was set aside.

    Attributes:
        rows: rows with at least one fault.
        by_check: faults per check, most frequent first.
        by_day: faults per day of event time and check; rows whose time lies ahead or cannot be read come last.
        examples: a few faults of each check.
        files: unreadable files with their reasons.
    """

    rows: int
    by_check: tuple[tuple[str, int], ...]
    by_day: tuple[tuple[str, ...], Mapping[str, tuple[int, ...]]]
    examples: tuple[Fault, ...]
    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class StoredData:
    """Everything of one model. `rows` and `labelled` count all days, not only those shown."""

    rows: int
    labelled: int
    first: str
    last: str
    days: Days | None
    quarantine: Quarantine
    drift: tuple[Mapping[str, Any], ...]
    quality: tuple[Mapping[str, Any], ...]


def read_stored(home: ModelHome) -> StoredData:
    """Read what lies in a model's home; an empty one is fine."""
    files = day_files(home.validated)
    totals = pl.scan_parquet(files).select(pl.len(), pl.col("label").count()).collect().row(0) if files else (0, 0)
    return StoredData(
        rows=totals[0],
        labelled=totals[1],
        first=files[0].stem if files else "",
        last=files[-1].stem if files else "",
        days=_read_days(files) if files else None,
        quarantine=_read_quarantine(home.quarantine),
        drift=tuple(read_windows(home.windows, "drift")[-DAYS_SHOWN:]),
        quality=tuple(read_windows(home.windows, "quality")[-DAYS_SHOWN:]),
    )


def _read_days(files: Sequence[Path]) -> Days:
    names = _calendar(files[0].stem, files[-1].stem)
    rows = pl.concat(
        [pl.read_parquet(path, columns=list(_COLUMNS)) for path in files if path.stem >= names[0]],
        how="vertical_relaxed",
    ).with_columns(day=pl.col("event_timestamp").dt.strftime("%Y-%m-%d"), length=pl.col("text").str.len_chars())
    delay = (pl.col("label_timestamp") - pl.col("event_timestamp")).dt.total_seconds() / 86_400
    recent = pl.col("day").is_in(names[-RECENT_DAYS:])
    before, now = (rows.filter(part)["length"].drop_nulls().to_numpy().astype(float) for part in (~recent, recent))
    return Days(
        names=names,
        labels=_by_label(rows, names),
        lengths=_bands(rows, pl.col("length"), names),
        delays=_bands(rows, delay, names),
        missing=_missing(rows, names),
        recent_lengths=of_numbers(before, now),
    )


def _calendar(first: str, last: str) -> tuple[str, ...]:
    """Every day from `first` to `last`, at most the latest 90."""
    end = date.fromisoformat(last)
    days = min((end - date.fromisoformat(first)).days + 1, DAYS_SHOWN)
    return tuple(f"{end - timedelta(days=n)}" for n in reversed(range(days)))


def _by_label(rows: pl.DataFrame, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    counts = rows.group_by("day", pl.col("label").fill_null(NOT_KNOWN)).len()
    known = sorted(set(counts["label"]) - {NOT_KNOWN})
    order = [*known, NOT_KNOWN] if NOT_KNOWN in set(counts["label"]) else known
    found = {(day, label): n for day, label, n in counts.iter_rows()}
    return {label: tuple(found.get((day, label), 0) for day in names) for label in order}


def _bands(rows: pl.DataFrame, figure: pl.Expr, names: Sequence[str]) -> tuple[Band | None, ...]:
    quantiles = rows.group_by("day").agg(*(figure.quantile(q).alias(str(q)) for q in (0.1, 0.5, 0.9)))
    found = {day: Band(low, middle, high) for day, low, middle, high in quantiles.drop_nulls().iter_rows()}
    return tuple(found.get(day) for day in names)


def _missing(rows: pl.DataFrame, names: Sequence[str]) -> dict[str, tuple[float | None, ...]]:
    lacking = [name for name in _COLUMNS if rows[name].null_count()]
    shares = rows.group_by("day").agg(pl.col(name).is_null().mean() for name in lacking)
    found = {day: values for day, *values in shares.iter_rows()}
    return {
        name: tuple(found[day][place] if day in found else None for day in names) for place, name in enumerate(lacking)
    }


def _read_quarantine(folder: Path) -> Quarantine:
    files = sorted(folder.glob("*.parquet"))
    faults = pl.concat([pl.read_parquet(path) for path in files], how="diagonal") if files else pl.DataFrame()
    reasons = sorted((folder / "files").glob("*.reason.txt"))
    unreadable = tuple((path.name.removesuffix(".reason.txt"), path.read_text().strip()) for path in reasons)
    if faults.is_empty():
        return Quarantine(0, (), ((), {}), (), unreadable)
    checks = faults.group_by("check").len().sort(["len", "check"], descending=[True, False])
    return Quarantine(
        rows=faults.n_unique(["file", "row"]),
        by_check=tuple(checks.iter_rows()),
        by_day=_by_day(faults, checks["check"].to_list()),
        examples=_examples(faults, checks["check"].to_list()),
        files=unreadable,
    )


def _by_day(faults: pl.DataFrame, checks: Sequence[str]) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    day = pl.col("event_timestamp").str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False).cast(pl.String)
    # A mistyped year, which would be the end of all days.
    is_ahead = (pl.col("check") == "not_in_the_future").any().over("file", "row")
    known = pl.when(is_ahead).then(pl.lit(AHEAD)).otherwise(day.fill_null(NO_TIME))
    counts = faults.group_by(known.alias("day"), "check").len()
    found = {(day, check): n for day, check, n in counts.iter_rows()}
    named = {day for day, _ in found}
    dated = sorted(named - {AHEAD, NO_TIME})
    days = list(_calendar(dated[0], dated[-1])) if dated else []
    days += [name for name in (AHEAD, NO_TIME) if name in named]
    return tuple(days), {check: tuple(found.get((day, check), 0) for day in days) for check in checks}


def _examples(faults: pl.DataFrame, checks: Sequence[str], each: int = 4) -> tuple[Fault, ...]:
    return tuple(
        Fault(
            **{name: str(fault[name]) for name in ("file", "row", "column", "check", "reason")},
            value=_shorten(fault.get(fault["column"])),
        )
        for check in checks
        for fault in faults.filter(pl.col("check") == check).head(each).iter_rows(named=True)
    )


def _shorten(value: str | None, most: int = 140) -> str:
    if not value:
        return "(missing)" if value is None else "(empty)"
    return value if len(value) <= most else f"{value[:most]}… ({len(value):,} characters)"
