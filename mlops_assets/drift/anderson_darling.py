"""Two-sample Anderson-Darling test for one numeric column, sensitive to the tails.

Null: both samples come from one distribution. The p-value is interpolated in a table between 0.001 and 0.25,
and stands at that bound outside of it.

Source: Scholz and Stephens, "K-sample Anderson-Darling tests" (1987).
"""

from __future__ import annotations

import warnings

from scipy.stats import anderson_ksamp

from mlops_assets.drift.columns import Floats
from mlops_assets.drift.rank_tests import RankTest, judge
from mlops_assets.drift.result import DriftResult, Limits

NAME = "anderson_darling"


def anderson_darling(reference: Floats, current: Floats, limits: Limits = Limits(), *, column: str = "") -> DriftResult:
    """Compare two numeric samples without missing values; the effect is the Kolmogorov-Smirnov distance.

    >>> import numpy as np
    >>> anderson_darling(np.arange(100.0), np.arange(100.0) + 30, column="spend").verdict.value
    'fail'
    """
    return judge(_TEST, reference, current, limits, column)


def _measure(reference: Floats, current: Floats) -> tuple[float, float]:
    """Statistic and p-value; of a constant pool there is no statistic, and no change either."""
    if min(reference.min(), current.min()) == max(reference.max(), current.max()):
        return 0.0, 1.0
    with warnings.catch_warnings():
        # scipy warns whenever the p-value stands at a bound, which `method` says already.
        warnings.filterwarnings("ignore", message="p-value (capped|floored)")
        test = anderson_ksamp([reference, current], variant="midrank")
    return float(test.statistic), float(test.pvalue)


_TEST = RankTest(NAME, "table of Scholz and Stephens, 0.001 to 0.25", "Anderson-Darling p < 0.05", _measure)
