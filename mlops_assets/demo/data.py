"""The data a demo runs on: the user's own folder in the documented format, or the embedded world."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from mlops_assets.data.contract import TooManyBadRows, enforce_share
from mlops_assets.data.customer_features import validate_events
from mlops_assets.data.split import TooFewRows, first_rule, labelled_by
from mlops_assets.data.tables import SUFFIXES, BadTable, read_table, to_events, to_messages
from mlops_assets.data.validation import validate
from mlops_assets.spec import ModelSpec

MESSAGES, ORDINARY, SHIFTED, EVENTS = "messages", "traffic_in_domain", "traffic_shifted", "customer_events"
FILES = {
    MESSAGES: "labelled history",
    ORDINARY: "ordinary days after it",
    SHIFTED: "days on which the traffic is different",
    EVENTS: "purchases of the customers",
}


class DemoDataError(ValueError):
    """The folder cannot be used; the message says what is missing and what the format is."""


@dataclass(frozen=True)
class DemoData:
    """Files to ingest and traffic to replay. All times are UTC."""

    messages: Path
    customer_events: Path
    ordinary: pl.DataFrame
    shifted: pl.DataFrame

    @property
    def traffic(self) -> pl.DataFrame:
        return pl.concat([self.ordinary, self.shifted])

    @property
    def ordinary_days(self) -> list[datetime]:
        """Ordinary days before the first shifted one."""
        shift = self.shifted_days[0]
        return [day for day in _days(self.ordinary) if day < shift]

    @property
    def shifted_days(self) -> list[datetime]:
        return _days(self.shifted)


def load_demo_data(folder: Path, spec: ModelSpec) -> DemoData:
    """Read a folder in the format of docs/data.md.

    Raises:
        DemoDataError: a file is missing or no table of its kind, too many rows of the history or the events break
            their contract, none of the traffic keeps it, there is no ordinary day before the first shifted one, or
            too few labels are known by then to train on.
    """
    paths = {name: path for name in FILES if (path := _file(folder, name))}
    missing = [name for name in FILES if name not in paths]
    if missing:
        wanted = "; ".join(f"{name} ({what})" for name, what in FILES.items())
        raise DemoDataError(
            f"{folder} lacks {', '.join(missing)}. A demo folder holds {wanted}, each as {', '.join(SUFFIXES)}: "
            "see docs/data.md"
        )
    data = DemoData(paths[MESSAGES], paths[EVENTS], _traffic(paths[ORDINARY], spec), _traffic(paths[SHIFTED], spec))
    if not data.ordinary_days:
        raise DemoDataError(
            f"{folder}: the shifted traffic begins on {data.shifted_days[0]:%Y-%m-%d}, and {ORDINARY} "
            "has no day before it; the story needs ordinary days first"
        )
    _require_history(data, spec)
    return data


def _file(folder: Path, name: str) -> Path | None:
    return next((path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()), None)


def _traffic(path: Path, spec: ModelSpec) -> pl.DataFrame:
    try:
        rows = validate(to_messages(read_table(path), spec.data.columns), spec.data).good
    except BadTable as error:
        raise DemoDataError(f"{path.name}: {error}") from error
    if rows.is_empty():
        raise DemoDataError(f"{path}: no row keeps the data contract")
    return rows


def _require_history(data: DemoData, spec: ModelSpec) -> None:
    """What the platform would find only once it runs, where the story would wait for it in vain."""
    path, share = data.messages, spec.data.max_quarantined_share
    try:
        rows = enforce_share(validate(to_messages(read_table(path), spec.data.columns), spec.data), share).good
        first_rule(labelled_by(rows, data.ordinary_days[0]), spec.data)
        path = data.customer_events
        enforce_share(validate_events(to_events(read_table(path))), share)
    except (BadTable, TooFewRows, TooManyBadRows) as error:
        raise DemoDataError(f"{path.name}: {error}") from error


def _days(rows: pl.DataFrame) -> list[datetime]:
    days = rows["event_timestamp"].dt.truncate("1d").unique().sort().to_list()
    return [day for day in days if isinstance(day, datetime)]


def day_after(day: datetime) -> datetime:
    """The first moment of the next day."""
    return day + timedelta(days=1)
