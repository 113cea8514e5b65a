"""Rows that know what could not be known yet: labels, features, and training rows where the split says test.

Counts rows; none is the only good count. It trusts the timestamps that it is given: a source that stamps a value
with an earlier time than it was written is not seen here (`column_leak` may see what it gives away).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from mlops_assets.data.split import SplitRule, split

KNOWN_AT = "features_known_at"


def early_labels(frame: pl.DataFrame, as_of: datetime) -> int:
    """Rows whose event or label was not known at `as_of`, the moment of the snapshot."""
    known = pl.max_horizontal("event_timestamp", "label_timestamp") <= as_of
    return frame.filter(~(known & pl.col("label_timestamp").is_not_null())).height


def out_of_split(frame: pl.DataFrame, rule: SplitRule) -> int:
    """Rows in another part than the declared split gives them: learned from though held out, or the reverse.

    In the first period the split is by time, so that this holds every training row later than a test row; of
    later days it is by hash.
    """
    return int((split(frame, rule)["part"] != frame["part"]).sum())


def early_features(frame: pl.DataFrame, features: Sequence[str]) -> int | None:
    """Rows with a feature value from after the message, by `with_known_at`; None where that was not recorded."""
    if not features:
        return 0
    if KNOWN_AT not in frame.columns:
        return None
    given = pl.any_horizontal(pl.col(name).is_not_null() for name in features)
    late = pl.col(KNOWN_AT).is_null() | (pl.col(KNOWN_AT) > pl.col("event_timestamp"))
    return frame.filter(given & late).height


def with_known_at(joined: pl.DataFrame, offline: pl.DataFrame, features: Sequence[str]) -> pl.DataFrame:
    """Add `features_known_at`: from when on the joined values of a row could have been looked up.

    A replay of the point-in-time join by other means: the earliest row of the same customer that carries these
    very values counts, at the later of its event and known time. Null where no row carries them.

    Parameters
    ----------
    joined : rows with `message_id`, `customer_id` and the features, as the feature store joined them.
    offline : the store's rows: `customer_id`, `event_timestamp`, `created_timestamp` and the features.
    """
    keys = ["customer_id", *features]
    since = offline.group_by(keys).agg(pl.max_horizontal("event_timestamp", "created_timestamp").min().alias(KNOWN_AT))
    return joined.join(since, on=keys, how="left", nulls_equal=True, maintain_order="left")
