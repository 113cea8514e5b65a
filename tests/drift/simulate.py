"""Counts alarms over seeded repetitions, and says how many a stated rate allows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import binom


def alarms(judge: Callable[[np.random.Generator], bool], repetitions: int, seed: int = 7) -> int:
    """How often `judge` says yes, each time on a generator of its own."""
    return sum(judge(rng) for rng in np.random.default_rng(seed).spawn(repetitions))


def at_most(rate: float, repetitions: int) -> int:
    """Most alarms that a true `rate` gives in all but one of 10,000 such simulations."""
    return int(binom.ppf(1 - 1e-4, repetitions, rate))
