"""One claim that a gate or a rollout makes, with the numbers behind it.

A claim is what evidence consists of: its value, the limit it is held against, how many rows it rests on
and how many it would need. It knows nothing of how the value was computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlops_assets.verdict import Verdict


@dataclass(frozen=True)
class Claim:
    """A named, judged figure.

    Parameters
    ----------
    name : dotted name, stable over versions, e.g. ``guard.failures``.
    verdict : only ``PASS`` lets anything go ahead.
    value, limit : the figure and what it was held against; None where it could not be computed.
    rows : rows (or requests) the value rests on.
    rows_needed : least rows at which the claim could pass; None where no number of rows would do.
    message : one sentence for people.
    """

    name: str
    verdict: Verdict
    value: float | None
    limit: float | None
    rows: int
    rows_needed: int | None
    message: str

    def __post_init__(self) -> None:
        for field in ("value", "limit"):
            number = getattr(self, field)
            if number is not None and not math.isfinite(number):
                raise ValueError(f"claim {self.name}: {field} is {number}; state a missing figure as None")
