"""Change in the share of missing values of one column.

Null: a value is as likely to be missing in the window as in the reference. Tested as a two by two table,
exactly where it is thin; the effect is the change of the share, over all rows. Whether a share is bearable as
such is the monitors' question, not this one.
"""

from __future__ import annotations

import numpy as np

from mlops_assets.drift.chi_squared import homogeneity
from mlops_assets.drift.result import DriftResult, Figures, Limits, judged

NAME = "missing"
PLAIN_RULE = "missing > 5 %"


def missing(
    reference: tuple[int, int],
    current: tuple[int, int],
    limits: Limits = Limits(effect=0.05),
    *,
    column: str = "",
    independent: tuple[float, float] = (1.0, 1.0),
) -> DriftResult:
    """Compare (missing, rows in all) of reference and window, of whose rows a share is `independent`.

    >>> missing((2, 1000), (40, 200), column="spend_90d").verdict.value
    'fail'
    """
    (absent_before, n), (absent_now, m) = reference, current

    def figures() -> Figures:
        table = [_told_by(*rows, share) for rows, share in zip((reference, current), independent, strict=True)]
        test = homogeneity(np.array(table))
        share = absent_now / m
        return Figures(
            statistic=share,
            p_value=test.p_value,
            effect=abs(share - absent_before / n),
            method=test.method,
            plain_rule={PLAIN_RULE: share > 0.05},
            threshold=limits.effect or None,
        )

    return judged(NAME, column, n, m, limits, figures)


def _told_by(absent: int, rows: int, share: float) -> tuple[int, int]:
    """Independent rows without the value and with it, at least one in all."""
    without = round(share * absent)
    return without, max(round(share * rows), 1) - without
