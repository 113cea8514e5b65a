"""Which rows train, which stop a trial, and which are held out for ever.

The first period is split by time; of every later day a hashed share is held out, so that the test set holds a
share of *every* period. Whether a row is a test row depends on its own id and time alone: it never changes.
Near-duplicates across the parts are left to `leakage`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from mlops_assets.spec import DataSpec

TRAIN, VALIDATION, TEST = "train", "validation", "test"
# Held out, and no test of a model: the label is not known yet, or the text was learned. Traffic has such messages too,
# so that what is to stand for the traffic needs them.
ASIDE = "aside"


class TooFewRows(ValueError):
    """There are not enough rows to split."""


@dataclass(frozen=True)
class SplitRule:
    """The split, made once on a model's first snapshot and kept.

    Attributes:
        first_cut: Event time (UTC) of the last row of the first snapshot; later rows are split by hash.
        first_test_from: Rows of the first period from this event time on are test rows.
        first_validation_from: Other rows of the first period from this event time on are validation rows.
        test_share: Share of every later day held out, 0..1.
        validation_share: Share of the other later rows used for validation, 0..1.
    """

    first_cut: datetime
    first_test_from: datetime
    first_validation_from: datetime
    test_share: float
    validation_share: float

    def to_dict(self) -> dict[str, Any]:
        return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> SplitRule:
        times = ("first_cut", "first_test_from", "first_validation_from")
        return cls(**{**document, **{name: datetime.fromisoformat(document[name]) for name in times}})


def first_rule(frame: pl.DataFrame, spec: DataSpec) -> SplitRule:
    """The rule for a model whose first snapshot is `frame`: its time-later `test_share` is held out.

    Rows of one event time stay together, so the shares are met up to ties.

    Raises:
        TooFewRows: no row would be left for training, validation or test.
    """
    times = frame["event_timestamp"].sort()
    test_from = _time_later(times, spec.test_share)
    earlier = times.filter(times < test_from) if test_from is not None else times.clear()
    validation_from = _time_later(earlier, spec.validation_share)
    if test_from is None or validation_from is None or validation_from == earlier[0]:
        raise TooFewRows(
            f"{frame.height} labelled rows at {times.n_unique()} distinct event times cannot be split into training, "
            f"validation ({spec.validation_share:.0%}) and test ({spec.test_share:.0%}) rows by time; add history"
        )
    return SplitRule(times[-1], test_from, validation_from, spec.test_share, spec.validation_share)


def split(frame: pl.DataFrame, rule: SplitRule) -> pl.DataFrame:
    """`frame` with a column `part`: train, validation or test.

    >>> from datetime import UTC
    >>> day = lambda d: datetime(2026, 3, d, tzinfo=UTC)
    >>> rule = SplitRule(day(10), day(9), day(8), test_share=0.2, validation_share=0.1)
    >>> rows = pl.DataFrame({"message_id": ["a", "b", "c"], "event_timestamp": [day(7), day(8), day(9)]})
    >>> split(rows, rule)["part"].to_list()
    ['train', 'validation', 'test']
    """
    event = pl.col("event_timestamp")
    by_time = (
        pl.when(event >= rule.first_test_from)
        .then(pl.lit(TEST))
        .when(event >= rule.first_validation_from)
        .then(pl.lit(VALIDATION))
        .otherwise(pl.lit(TRAIN))
    )
    early = frame.with_columns(part=by_time).with_row_index("__row").filter(event <= rule.first_cut)
    late = frame.with_row_index("__row").filter(event > rule.first_cut)
    parts = [_hashed_part(message_id, rule) for message_id in late["message_id"]]
    late = late.with_columns(part=pl.Series(parts, dtype=pl.String))
    return pl.concat([early, late.select(early.columns)]).sort("__row").drop("__row")


def labelled_by(frame: pl.DataFrame, as_of: datetime) -> pl.DataFrame:
    """The rows whose label was known at `as_of`: nothing uses a label before its `label_timestamp`."""
    return frame.filter(pl.col("label").is_not_null() & (pl.col("label_timestamp") <= as_of))


def newest_held_out(frame: pl.DataFrame, span: timedelta, min_rows: int, since: datetime | None = None) -> pl.DataFrame:
    """The rows that were not trained on, of the last `span` or of as long as it takes to have `min_rows`, newest first.

    Args:
        frame: split rows with `event_timestamp` and `part`.
        since: none that are older, but for those that are wanting to `min_rows`; no limit where most would be.
    """
    held_out = frame.filter(pl.col("part") != TRAIN).sort("event_timestamp", descending=True)
    times = held_out["event_timestamp"]
    if times.is_empty():
        return held_out
    enough: datetime = times[min(min_rows, len(times)) - 1]
    first = times[0] - span
    if since is not None and 2 * (times >= since).sum() >= min_rows:
        first = max(first, since)
    return held_out.filter(pl.col("event_timestamp") >= min(first, enough))


def _time_later(times: pl.Series, share: float) -> datetime | None:
    """From when the last `share` of the sorted `times` lies; None where that leaves nothing before or after it."""
    cut = round(len(times) * (1 - share))
    if not 0 < cut < len(times) or times[cut] == times[0]:
        return None
    found: datetime = times[cut]
    return found


def _hashed_part(message_id: str, rule: SplitRule) -> str:
    # two independent halves of one hash: which rows validate must not depend on which rows test
    digest = hashlib.blake2b(f"split:{message_id}".encode(), digest_size=16).digest()
    if _unit(digest[:8]) < rule.test_share:
        return TEST
    return VALIDATION if _unit(digest[8:]) < rule.validation_share else TRAIN


def _unit(eight_bytes: bytes) -> float:
    """Uniform in 0..1."""
    return int.from_bytes(eight_bytes, "big") / 2**64
