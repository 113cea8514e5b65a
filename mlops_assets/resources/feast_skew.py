"""What is served against what the offline join says, value by value.

A mismatch means that a model is trained on other numbers than it is asked with: mend the data, do not retrain.
Pure: it is given both sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlops_assets.resources.feast_types import OnlineFeatures
from mlops_assets.verdict import Verdict

_RELATIVE = 1e-9  # both sides hold the same doubles; a detour through float32 on either is already a mismatch


@dataclass(frozen=True)
class SkewMismatch:
    """One value that differs; None where that side has nothing."""

    customer_id: str
    feature: str
    online: float | None
    offline: float | None


@dataclass(frozen=True)
class SkewReport:
    """`compared` customers were known to at least one side; `newer` ones are served from an event after `as_of`
    (pushed since) and cannot be judged at that time."""

    as_of: datetime
    sampled: int
    compared: int
    newer: int
    mismatches: tuple[SkewMismatch, ...]

    @property
    def mismatched_customers(self) -> tuple[str, ...]:
        return tuple(sorted({mismatch.customer_id for mismatch in self.mismatches}))

    @property
    def verdict(self) -> Verdict:
        """FAIL on any mismatch; INSUFFICIENT_DATA where nobody in the sample could be compared."""
        if self.mismatches:
            return Verdict.FAIL
        return Verdict.PASS if self.compared else Verdict.INSUFFICIENT_DATA

    @property
    def message(self) -> str:
        """One line for a person, with the first mismatch as an example; whose it is stands in `mismatches` alone."""
        if not self.compared:
            return f"none of {self.sampled} sampled customers is known at {self.as_of.isoformat()}"
        if not self.mismatches:
            return f"{self.compared} customers are served what the offline join says"
        first = self.mismatches[0]
        return (
            f"{len(self.mismatched_customers)} of {self.compared} customers are served other values than the offline "
            f"join has, such as {first.feature}: {first.online} online, {first.offline} offline"
        )


def compare(
    as_of: datetime, features: Sequence[str], served: Sequence[OnlineFeatures], offline: Sequence[Mapping[str, Any]]
) -> SkewReport:
    """Compare the two sides, row by row in the same order."""
    pairs = list(zip(served, offline, strict=True))
    newer = [s for s, _ in pairs if s.event_timestamp is not None and s.event_timestamp > as_of]
    judged = [(s, o) for s, o in pairs if s.event_timestamp is None or s.event_timestamp <= as_of]
    compared = [(s, o) for s, o in judged if any(s.values.get(f) is not None or o.get(f) is not None for f in features)]
    mismatches = tuple(
        SkewMismatch(s.customer_id, feature, s.values.get(feature), o.get(feature))
        for s, o in compared
        for feature in features
        if not _same(s.values.get(feature), o.get(feature))
    )
    return SkewReport(as_of, len(pairs), len(compared), len(newer), mismatches)


def _same(online: float | None, offline: float | None) -> bool:
    """Equal values; null equals null alone (a NaN offline is read as null).

    >>> _same(None, float("nan")), _same(1.0, None), _same(2.0, 2.0)
    (True, False, True)
    """
    left = None if online is None or math.isnan(online) else online
    right = None if offline is None or math.isnan(offline) else offline
    if left is None or right is None:
        return left is right
    return math.isclose(left, right, rel_tol=_RELATIVE, abs_tol=1e-12)
