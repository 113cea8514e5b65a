"""How fast this machine is at the moment: a shared one changes by half within minutes.

The bare network runs on every core for a moment before and after each load. What was measured in between is then told
as it would have been at the median of these paces, so that nobody wins by having had the better minute.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mlops_assets.training.artefact import Predictor

CORES = 2
SECONDS = 1.0
BATCH = 8


class Pace:
    """Runs one exported network in batches of eight messages, one thread a core."""

    def __init__(self, artefact: Path, texts: Sequence[str]) -> None:
        self._predictors = [Predictor.load(artefact, expected_digest=None) for _ in range(CORES)]
        self._batches = [texts[start : start + BATCH] for start in range(0, len(texts) - BATCH + 1, BATCH)]

    def now(self) -> float:
        """Processor milliseconds a sentence takes on one core while the others are as busy."""
        with ThreadPoolExecutor(CORES) as pool:
            return sum(pool.map(self._run, self._predictors)) / CORES

    def _run(self, predictor: Predictor) -> float:
        defaults = np.tile(np.array(list(predictor.feature_defaults.values()), np.float32), (BATCH, 1))
        end, before, done = time.perf_counter() + SECONDS, time.thread_time(), 0
        while time.perf_counter() < end:
            predictor.predict(self._batches[done % len(self._batches)], defaults)
            done += 1
        return 1000 * (time.thread_time() - before) / (done * BATCH)
