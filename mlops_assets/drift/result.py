"""The one shape in which every drift statistic answers, and the limits it is judged by.

Knows nothing of any statistic. A result carries the figure, its error rate, its effect size and the sample
sizes, so that it can be judged again later; which results belong together is decided in `window`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mlops_assets.verdict import Verdict


class DriftInputError(ValueError):
    """A sample cannot be compared with its reference; the message names what, where and how to mend it."""


@dataclass(frozen=True)
class Limits:
    """When a single comparison counts as drift: both the error rate and the effect must say so.

    Attributes:
        alpha: largest p-value that counts (probability of a false alarm under the null).
        effect: least effect size that counts, in the unit of the statistic's effect.
        min_rows: rows that both samples must have; fewer are `insufficient_data`.
    """

    alpha: float = 0.01
    effect: float = 0.0
    min_rows: int = 30


@dataclass(frozen=True)
class DriftResult:
    """One comparison of one column. ``PASS`` is quiet, ``FAIL`` is drift.

    Attributes:
        statistic_name: for instance ``kolmogorov_smirnov``.
        column: what was compared; ``*`` for all columns of a group at once.
        statistic: its value; None where it could not be computed.
        p_value: probability of a statistic at least as large when nothing has changed; None if it has none.
        threshold: what the statistic had to exceed, where the statistic itself has a limit.
        effect: how large the change is, free of the sample size; its unit is that of the statistic.
        n_reference, n_current: rows that entered (missing values left out).
        method: how statistic and p-value were computed.
        plain_rule: what the field's plain rules say; reported, never acted upon.
        message: what a person should know, such as why there is no figure.
    """

    statistic_name: str
    column: str
    statistic: float | None
    p_value: float | None
    threshold: float | None
    effect: float | None
    n_reference: int
    n_current: int
    method: str
    verdict: Verdict
    plain_rule: Mapping[str, bool] = field(default_factory=dict)
    message: str = ""

    def with_verdict(self, verdict: Verdict, message: str = "") -> DriftResult:
        """The same figures under another verdict, as a correction over many results gives."""
        return replace(self, verdict=verdict, message=message or self.message)


@dataclass(frozen=True)
class Figures:
    """What a statistic measures of two samples, before it is judged; the fields are those of `DriftResult`."""

    statistic: float
    p_value: float
    effect: float
    method: str
    plain_rule: Mapping[str, bool]
    threshold: float | None = None
    message: str = ""


def judged(
    statistic_name: str, column: str, n_reference: int, n_current: int, limits: Limits, measure: Callable[[], Figures]
) -> DriftResult:
    """The one way from two samples to a verdict: measured only if both are large enough, then decided.

    A figure that is not finite, as values too large for float64 give, is an ``ERROR``: compared with a limit
    it would pass.
    """
    if too_small(n_reference, n_current, limits):
        return insufficient(statistic_name, column, n_reference, n_current, limits)
    with np.errstate(over="ignore", invalid="ignore"):
        figures = measure()
    if not all(map(math.isfinite, (figures.statistic, figures.p_value, figures.effect))):
        message = f"column {column}: the {statistic_name} of these values is not finite; look for extreme values"
        return broken(statistic_name, column, n_reference, n_current, message)
    return DriftResult(
        statistic_name=statistic_name,
        column=column,
        statistic=figures.statistic,
        p_value=figures.p_value,
        threshold=figures.threshold,
        effect=figures.effect,
        n_reference=n_reference,
        n_current=n_current,
        method=figures.method,
        verdict=decide(figures.p_value, figures.effect, limits),
        plain_rule=figures.plain_rule,
        message=figures.message,
    )


def decide(p_value: float, effect: float, limits: Limits) -> Verdict:
    """``FAIL`` when the change is both significant and large enough to matter.

    >>> decide(0.001, 0.05, Limits(alpha=0.01, effect=0.2)).value
    'pass'
    """
    return Verdict.FAIL if p_value <= limits.alpha and effect >= limits.effect else Verdict.PASS


def insufficient(statistic_name: str, column: str, n_reference: int, n_current: int, limits: Limits) -> DriftResult:
    """The answer when either sample is smaller than `limits.min_rows`."""
    message = f"needs {limits.min_rows} rows on both sides, has {n_reference} and {n_current}"
    return _unanswered(statistic_name, column, n_reference, n_current, Verdict.INSUFFICIENT_DATA, message)


def broken(statistic_name: str, column: str, n_reference: int, n_current: int, message: str) -> DriftResult:
    """The answer when the samples cannot be compared at all."""
    return _unanswered(statistic_name, column, n_reference, n_current, Verdict.ERROR, message)


def too_small(n_reference: int, n_current: int, limits: Limits) -> bool:
    """Whether either sample has too few rows to be judged; an empty one always has."""
    return min(n_reference, n_current) < max(limits.min_rows, 1)


def _unanswered(
    statistic_name: str, column: str, n_reference: int, n_current: int, verdict: Verdict, message: str
) -> DriftResult:
    return DriftResult(
        statistic_name=statistic_name,
        column=column,
        statistic=None,
        p_value=None,
        threshold=None,
        effect=None,
        n_reference=n_reference,
        n_current=n_current,
        method="not computed",
        verdict=verdict,
        message=message,
    )
