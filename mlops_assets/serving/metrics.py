"""Counting what an ingress replica does, for Prometheus: plain sums that cost a request a microsecond or two.

The sums only grow, and travel to the guard with the half-second exchange; names, units and the text that
Prometheus reads are `exposition`'s. No label ever holds anything that a customer sent.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time
from typing import Literal

from mlops_assets.serving.tally import Arm

Outcome = Literal["answered", "failed", "overloaded"]
Copied = Literal["answered", "failed", "dropped"]
Lookup = Literal["hit", "default", "stale"]

BUCKETS_MS = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 1000.0, 2500.0)


@dataclass(frozen=True)
class Latencies:
    """How many answers took at most so long: `counts` per bucket of `BUCKETS_MS` and one for those above."""

    counts: tuple[int, ...]
    total_ms: float


@dataclass(frozen=True)
class Figures:
    """The sums of one model in one replica since it started.

    Attributes:
        requests: by arm, version and outcome.
        copies: of requests, for the canary in a shadow step, by its version and outcome.
        latencies: of answered requests, by arm and version.
        lookups: of customer features.
        log_failures: records that could not be written.
        logged_at: when the last prediction's record was written, in seconds of the epoch; None: none yet.
        pending: requests that wait for the stable version at this moment.
        batches, batched: runs of the stable version's network, and the requests in them.
        refused: number of the version that is to serve and cannot, most likely for files that were changed; 0: none.
    """

    requests: Mapping[tuple[Arm, int, Outcome], int] = field(default_factory=dict)
    copies: Mapping[tuple[int, Copied], int] = field(default_factory=dict)
    latencies: Mapping[tuple[Arm, int], Latencies] = field(default_factory=dict)
    lookups: Mapping[Lookup, int] = field(default_factory=dict)
    log_failures: int = 0
    logged_at: float | None = None
    pending: int = 0
    batches: int = 0
    batched: int = 0
    refused: int = 0


class Meter:
    """Counts for one model; used from the replica's event loop alone.

    >>> meter = Meter()
    >>> meter.answered("stable", 3, 7.2)
    >>> meter.figures().requests
    {('stable', 3, 'answered'): 1}
    """

    def __init__(self) -> None:
        self._requests: Counter[tuple[Arm, int, Outcome]] = Counter()
        self._copies: Counter[tuple[int, Copied]] = Counter()
        self._counts: dict[tuple[Arm, int], list[int]] = {}
        self._total_ms: defaultdict[tuple[Arm, int], float] = defaultdict(float)
        self._lookups: Counter[Lookup] = Counter()
        self._log_failures = 0
        self._logged_at: float | None = None

    def answered(self, arm: Arm, version: int, milliseconds: float) -> None:
        """A request was answered."""
        self._requests[arm, version, "answered"] += 1
        key = (arm, version)
        if key not in self._counts:
            self._counts[key] = [0] * (len(BUCKETS_MS) + 1)
        self._counts[key][bisect_left(BUCKETS_MS, milliseconds)] += 1
        self._total_ms[key] += milliseconds

    def missed(self, arm: Arm, version: int, outcome: Outcome) -> None:
        """An arm was asked and did not answer."""
        self._requests[arm, version, outcome] += 1

    def copied(self, version: int, outcome: Copied) -> None:
        """A copy of a request was for the canary, and this became of it."""
        self._copies[version, outcome] += 1

    def looked_up(self, outcome: Lookup) -> None:
        """A customer's features were looked up."""
        self._lookups[outcome] += 1

    def logged(self) -> None:
        """A prediction's record is on disk."""
        self._logged_at = time()

    def log_failed(self) -> None:
        """A record could not be written."""
        self._log_failures += 1

    def figures(self, pending: int = 0, batches: int = 0, batched: int = 0) -> Figures:
        """The sums so far, beside what the stable version's queue says of itself."""
        latencies = {key: Latencies(tuple(counts), self._total_ms[key]) for key, counts in self._counts.items()}
        return Figures(
            dict(self._requests),
            dict(self._copies),
            latencies,
            dict(self._lookups),
            self._log_failures,
            self._logged_at,
            pending,
            batches,
            batched,
        )
