"""How busy the machine of the endpoint is: samples that the endpoint leaves in a file, and spells of being busy.

Samples carry the wall clock's time, also under a replayed clock: a processor knows no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mlops_assets.storage import read_json, write_json

FILE = "machine.json"
GAP = timedelta(minutes=1)  # without a sample for longer, nothing is known of the time between


@dataclass(frozen=True)
class Sample:
    """Shares in use (0..1) since the sample before; `gpu` is the busiest one's, None without any."""

    at: datetime
    cpu: float
    gpu: float | None = None

    @property
    def busiest(self) -> float:
        return max(self.cpu, self.gpu or 0.0)


def read_samples(home: Path) -> list[Sample]:
    """The samples of the last hour, oldest first; none where nobody took any."""
    path = home / FILE
    return [_sample(entry) for entry in read_json(path)] if path.exists() else []


def write_samples(home: Path, samples: Sequence[Sample]) -> Path:
    """Replace the file by these samples."""
    return write_json(home / FILE, [asdict(sample) for sample in samples])


def longest_spell(samples: Sequence[Sample], limit: float) -> timedelta:
    """The longest time without a sample at or below `limit` (0..1), and without a gap.

    >>> from datetime import UTC
    >>> start = datetime(2026, 3, 1, tzinfo=UTC)
    >>> samples = [Sample(start + timedelta(seconds=10 * n), 0.95) for n in range(31)]
    >>> longest_spell(samples, 0.9) == timedelta(minutes=5)
    True
    """
    longest, began, before = timedelta(0), None, None
    for sample in samples:
        if sample.busiest <= limit:
            began = None
        elif began is None or before is None or sample.at - before > GAP:
            began = sample.at
        if began is not None:
            longest = max(longest, sample.at - began)
        before = sample.at
    return longest


def _sample(entry: dict[str, Any]) -> Sample:
    return Sample(datetime.fromisoformat(entry["at"]), entry["cpu"], entry["gpu"])
