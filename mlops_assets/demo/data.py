"""The data a demo runs on: the user's own folder in the documented format, or the embedded world."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from mlops_assets.data.tables import BadTable, read_table, to_messages
from mlops_assets.data.validation import validate
from mlops_assets.spec import ModelSpec

FILES = {
    "messages.parquet": "labelled history",
    "traffic_in_domain.parquet": "ordinary days after it",
    "traffic_shifted.parquet": "days on which the traffic is different",
    "customer_events.parquet": "purchases of the customers",
}


class DemoDataError(ValueError):
    """The folder cannot be used; the message says what is missing and what the format is."""


@dataclass(frozen=True)
class DemoData:
    """Files to ingest and traffic to replay. All times are UTC."""

    folder: Path
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
        DemoDataError: a file is missing or no table of messages, none of its rows keeps the model's data contract,
            or there is no ordinary day before the first shifted one.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        wanted = "; ".join(f"{name} ({what})" for name, what in FILES.items())
        raise DemoDataError(f"{folder} lacks {', '.join(missing)}. A demo folder holds {wanted}: see docs/data.md")
    ordinary = _traffic(folder / "traffic_in_domain.parquet", spec)
    shifted = _traffic(folder / "traffic_shifted.parquet", spec)
    data = DemoData(folder, ordinary, shifted)
    if not data.ordinary_days:
        raise DemoDataError(
            f"{folder}: the shifted traffic begins on {data.shifted_days[0]:%Y-%m-%d}, and traffic_in_domain.parquet "
            "has no day before it; the story needs ordinary days first"
        )
    return data


def _traffic(path: Path, spec: ModelSpec) -> pl.DataFrame:
    try:
        rows = validate(to_messages(read_table(path), spec.data.columns), spec.data).good
    except BadTable as error:
        raise DemoDataError(f"{path.name}: {error}") from error
    if rows.is_empty():
        raise DemoDataError(f"{path}: no row keeps the data contract")
    return rows


def _days(rows: pl.DataFrame) -> list[datetime]:
    days = rows["event_timestamp"].dt.truncate("1d").unique().sort().to_list()
    return [day for day in days if isinstance(day, datetime)]


def day_after(day: datetime) -> datetime:
    """The first moment of the next day."""
    return day + timedelta(days=1)
