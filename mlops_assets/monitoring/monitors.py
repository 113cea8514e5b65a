"""The monitors of a model in production: each turns figures of a day into a verdict with its evidence.

A plain rule of the field is always reported; where a calibrated rule exists it is the one that acts.
Getting the figures, and telling anybody, is left to the caller.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.stats import beta

from mlops_assets.monitoring.quality import CONFIDENCE, Quality
from mlops_assets.spec import MonitorSpec
from mlops_assets.verdict import Verdict

MISSING_ALPHA = 0.01
PSI_LIMIT = 0.2
_PSI_ROWS = 200
_FALLING_DAYS = 3


@dataclass(frozen=True)
class MonitorResult:
    """One monitor's outcome.

    `acts` is False for a plain rule that is shown but opens no alert, as it is known to cry wolf.
    `plain` holds what the field's plain rule says of the same figures; None where it cannot say.
    """

    name: str
    verdict: Verdict
    value: float | None
    limit: float
    n: int
    message: str
    plain_rule: str
    plain: bool | None
    acts: bool = True


def f1_drop(quality: Quality, promised_f1: float, spec: MonitorSpec) -> MonitorResult:
    """Realised weighted F1 against the F1 that the gate saw.

    Null: the true weighted F1 is at least `promised_f1` - `max_f1_drop`. It fails when the 95 % upper
    bound of the realised F1 lies below that limit: at most 5 % of the days of a model exactly
    at the limit fail (2 to 4 % in simulation), far fewer above it. The plain rule compares the point
    itself, which fails half of the days at the limit.
    """
    limit = promised_f1 - spec.max_f1_drop
    rule = f"F1 < {limit:.3f} (promised {promised_f1:.3f} less {spec.max_f1_drop:g})"
    f1, high = quality.f1_weighted, quality.f1_high
    if f1 is None or high is None or quality.labels < spec.min_labels:
        message = f"{quality.labels} labels are known, {spec.min_labels} are needed"
        plain = None if f1 is None else f1 < limit
        return MonitorResult("f1_drop", Verdict.INSUFFICIENT_DATA, f1, limit, quality.labels, message, rule, plain)
    fails = high < limit
    message = f"weighted F1 {f1:.3f}, at most {high:.3f} with {CONFIDENCE:.0%} confidence; limit {limit:.3f}"
    verdict = Verdict.FAIL if fails else Verdict.PASS
    return MonitorResult("f1_drop", verdict, f1, limit, quality.labels, message, rule, f1 < limit)


def missing_values(column: str, missing: int, rows: int, spec: MonitorSpec) -> MonitorResult:
    """The share of missing values of one column at arrival.

    Null: the true share is at most `max_missing_share`; a false alarm has a probability of at most 1 %
    per batch (exact one-sided bound: Clopper and Pearson, Biometrika 1934). With too few rows to rule
    out a share above the limit it says `insufficient_data`, unless the alarm is clear already.

    Raises:
        ValueError: `missing` is not between 0 and `rows`.
    """
    if not 0 <= missing <= rows:
        raise ValueError(f"{column}: {missing} of {rows} rows missing")
    limit, name = spec.max_missing_share, f"missing_values:{column}"
    rule = f"share missing > {limit:g}"
    if rows == 0:
        return MonitorResult(name, Verdict.INSUFFICIENT_DATA, None, limit, 0, "no rows", rule, None)
    share = missing / rows
    low = float(beta.ppf(MISSING_ALPHA, missing, rows - missing + 1)) if missing else 0.0
    message = f"{missing} of {rows} values missing ({share:.1%}); limit {limit:.1%}"
    needed = rows_for_missing(limit)
    if low > limit:
        verdict = Verdict.FAIL
    elif rows < needed:
        verdict, message = Verdict.INSUFFICIENT_DATA, f"{message}; {needed} rows are needed"
    else:
        verdict = Verdict.PASS
    return MonitorResult(name, verdict, share, limit, rows, message, rule, share > limit)


def rows_for_missing(limit: float) -> int:
    """Rows from which a batch without a missing value rules out a share above `limit`, at 99 %.

    >>> rows_for_missing(0.05)
    90
    """
    if limit <= 0 or limit >= 1:
        return 1
    return math.ceil(math.log(MISSING_ALPHA) / math.log1p(-limit))


def prediction_mix(reference: Mapping[str, int], current: Mapping[str, int]) -> MonitorResult:
    """PSI of the predicted labels, reported only: what acts on a changed mix is the drift check.

    With 20 labels PSI > 0.2 alarms on 98 % of quiet windows of 50 rows, and on 1 % of windows of 200.
    """
    labels = sorted(set(reference) | set(current))
    rows = sum(current.values())
    rule = f"PSI > {PSI_LIMIT}"
    if sum(reference.values()) == 0 or rows == 0:
        message = "no predictions on one of the sides"
        return MonitorResult(
            "prediction_mix", Verdict.INSUFFICIENT_DATA, None, PSI_LIMIT, rows, message, rule, None, acts=False
        )
    p, q = (_shares(side, labels) for side in (reference, current))
    value = float(((q - p) * np.log(q / p)).sum())
    fires = value > PSI_LIMIT
    judged = Verdict.FAIL if fires else Verdict.PASS
    verdict = judged if rows >= _PSI_ROWS else Verdict.INSUFFICIENT_DATA
    message = f"PSI {value:.3f} over {len(labels)} labels"
    return MonitorResult("prediction_mix", verdict, value, PSI_LIMIT, rows, message, rule, fires, acts=False)


def correctness_falling(daily: Sequence[Quality], spec: MonitorSpec) -> MonitorResult:
    """Accuracy that fell three days in a row, reported only: it fires on noise in 63 % of quiet months.

    `daily` holds consecutive days, the latest last; a day with too few labels ends the comparison.
    """
    rule = f"accuracy falls {_FALLING_DAYS} days in a row"
    recent = daily[-(_FALLING_DAYS + 1) :]
    known = [day.accuracy for day in recent if day.accuracy is not None and day.labels >= spec.min_labels]
    labels = sum(day.labels for day in recent)
    if len(known) <= _FALLING_DAYS:
        message = f"{_FALLING_DAYS + 1} days with {spec.min_labels} labels each are needed, {len(known)} have them"
        return MonitorResult(
            "correctness_falling", Verdict.INSUFFICIENT_DATA, None, 0.0, labels, message, rule, None, acts=False
        )
    fires = all(after < before for before, after in pairwise(known))
    change = known[-1] - known[0]
    message = "accuracy " + ", ".join(f"{value:.3f}" for value in known)
    verdict = Verdict.FAIL if fires else Verdict.PASS
    return MonitorResult("correctness_falling", verdict, change, 0.0, labels, message, rule, fires, acts=False)


def _shares(counts: Mapping[str, int], labels: Sequence[str]) -> np.ndarray:
    """Shares (c,) with half a row added per label, so that an unseen label gives no infinity."""
    smoothed = np.array([counts.get(label, 0) + 0.5 for label in labels], dtype=np.float64)
    return smoothed / smoothed.sum()
