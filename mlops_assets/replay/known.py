"""What the labels said at a moment: the quality of a day as it was known then, and how many labels there were.

The kept documents have the latest figures; a replay needs those of the day.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, time
from functools import cached_property
from typing import Any

import polars as pl

from mlops_assets.monitoring.quality import Quality, realised
from mlops_assets.replay.history import History


class KnownThen:
    """Answers and labels of a history, as of any moment."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._seed = history.own.training.seed
        self._quality: dict[tuple[date, int], Quality] = {}

    def quality(self, day: date, as_of: datetime) -> Quality:
        """Realised quality of a day's answers by the labels known at `as_of`: those of the version that it is of."""
        rows = self._days.get(day)
        if rows is None:
            return Quality(0, 0)
        known = rows.filter(pl.col("label").is_not_null() & (pl.col("label_timestamp") <= as_of)).height
        if (day, known) not in self._quality:
            self._quality[day, known] = realised(rows, as_of=as_of, seed=self._seed)
        return self._quality[day, known]

    def document(self, day: date, as_of: datetime) -> Mapping[str, Any]:
        """The quality document of a day as it stood at `as_of`."""
        return {**self._history.quality[day], **asdict(self.quality(day, as_of))}

    def answers_of(self, version: int | None, at: datetime) -> pl.DataFrame:
        """The answers of one version on the days that were over at `at`."""
        midnight = datetime.combine(at.astimezone(UTC).date(), time(), UTC)
        return self._history.answers.filter((pl.col("version") == version) & (pl.col("event_timestamp") < midnight))

    def labels(self, days: Collection[date], after: datetime, as_of: datetime) -> int:
        """Labels known at `as_of` of messages on these days that came after a moment."""
        rows = self._history.labels.filter(
            pl.col("event_timestamp").dt.date().is_in(sorted(days)),
            pl.col("event_timestamp") > after,
            pl.col("label_timestamp") <= as_of,
        )
        return rows.height

    @cached_property
    def _days(self) -> dict[date, pl.DataFrame]:
        """Answers by day, without those that a canary gave: they are the rollout's to judge."""
        answers = self._history.answers.with_columns(day=pl.col("event_timestamp").dt.date())
        versions = {day: document["reference_version"] for day, document in self._history.quality.items()}
        own = pl.col("version") == pl.col("day").replace_strict(versions, default=None, return_dtype=pl.Int64)
        return {key[0]: part for key, part in answers.filter(own).partition_by("day", as_dict=True).items()}
