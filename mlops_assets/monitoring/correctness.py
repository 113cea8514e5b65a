"""Correctness over time: whether a version still answers as rightly as its gate promised, one label after the other.

An e-process, so that it may be looked at after every label and for as long as the version lives. It knows
nothing of days or versions: the caller gives it the labels of one version, which is how it starts again with
the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

# How many times more often (in odds) it may be wrong than it may: from a slight loss to an outright failure.
_RATIOS = np.array([1.25, 1.6, 2.2, 3.0, 4.5, 7.0, 12.0, 25.0])
_NEW_BET = 20  # labels after which a new bet begins; rarer costs up to so many labels, oftener costs weight
MAX_LOG_E = 690.0


@dataclass(frozen=True)
class Correctness:
    """What the labels say so far.

    Attributes:
        labels, wrong: how many are known, and how many of these contradict the answer.
        promised: accuracy that is not to be undercut (what the gate saw less the tolerated drop).
        log_e: natural logarithm of the e-value now.
        since: when the label at which the e-value was lowest became known, its rise's begin; None before the first.
    """

    labels: int
    wrong: int
    promised: float
    log_e: float
    since: datetime | None

    @property
    def p_value(self) -> float:
        """Anytime-valid: at most this likely ever to come about while the promise is kept."""
        return float(np.exp(-max(self.log_e, 0.0)))


def in_known_order(frame: pl.DataFrame, as_of: datetime) -> pl.DataFrame:
    """The rows whose label was known at `as_of`, in the order in which the labels became known, then of events.

    This order, since a look must never change what an earlier one saw: in the order of events alone a late label
    would slip in before labels that were already counted.
    """
    known = frame.filter(pl.col("label").is_not_null() & (pl.col("label_timestamp") <= as_of))
    return known.sort("label_timestamp", "event_timestamp", "message_id")


def follow_correctness(frame: pl.DataFrame, promised: float, *, as_of: datetime) -> Correctness:
    """Where one version stands, by the labels known at `as_of`.

    Args:
        frame: its predictions, with `message_id`, `predicted`, `label` (null while unknown), `label_timestamp`
            and `event_timestamp`.
        promised: accuracy in [0, 1).

    Raises:
        ValueError: `promised` is no share below 1.
    """
    known = in_known_order(frame, as_of)
    wrong = (known["predicted"] != known["label"]).to_numpy()
    path = log_e_path(wrong, promised)
    if not len(path):
        return Correctness(0, 0, promised, 0.0, None)
    lowest = known["label_timestamp"][int(path.argmin())]
    return Correctness(len(wrong), int(wrong.sum()), promised, float(path[-1]), lowest)


def log_e_path(wrong: NDArray[np.bool_], promised: float) -> NDArray[np.float64]:
    """Log e-value after each of n labels, shape (n,), against "every answer is right with at least `promised`".

    Method: for odds ratios r > 1 each label multiplies a bet by r^wrong / (1 - q + q r), q = 1 - promised, which
    gains nothing on average under the null. A new bet begins every 20 labels, the k-th with weight 1 / (k (k + 1)),
    so that a change after a long good time is found as fast as an early one, up to the logarithm of its time (a
    mixture over change points: Shin, Ramdas and Rinaldo, "E-detectors", 2024). Weights and ratios are a mixture,
    so the whole is a test supermartingale.

    Null: P(right | the past) >= `promised` for every label, however it varies. Error rate, by Ville's inequality:
    the e-value ever reaches 1 / alpha, over any number of labels and looks, with probability at most alpha.

    >>> bool(log_e_path(np.ones(5, bool), 0.9)[-1] > np.log(100))
    True
    """
    if not 0 <= promised < 1:
        raise ValueError(f"promised accuracy {promised} is no share in [0, 1)")
    q = 1.0 - promised
    place = np.arange(len(wrong))
    bets = place // _NEW_BET + 1.0
    weights = np.where(place % _NEW_BET == 0, -np.log(bets * (bets + 1.0)), -np.inf)
    steps = wrong[:, None] * np.log(_RATIOS) - np.log1p(q * (_RATIOS - 1.0))
    after = np.cumsum(steps, axis=0)
    before = after - steps
    begun = np.logaddexp.accumulate(weights[:, None] - before, axis=0)
    running = np.logaddexp.reduce(after + begun, axis=1, initial=-np.inf) - np.log(len(_RATIOS))
    return np.minimum(np.logaddexp(running, -np.log(bets + 1.0)), MAX_LOG_E)
