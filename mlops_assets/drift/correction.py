"""Control of the error rate over many comparisons made at once.

Knows p-values only. The false discovery rate is held under independence and under positive dependence, as
between statistics that look at one column.

Source: Benjamini and Hochberg, "Controlling the false discovery rate" (1995); Benjamini and Yekutieli (2001).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given: reject where one is at most the false discovery rate wanted.

    When nothing has changed anywhere, the chance of any rejection is at most that rate.

    >>> [round(p, 6) for p in benjamini_hochberg([0.01, 0.04, 0.03, 0.005])]
    [0.02, 0.04, 0.04, 0.02]
    """
    raw = np.asarray(p_values, dtype=np.float64)
    if not len(raw):
        return []
    order = np.argsort(raw)
    scaled = raw[order] * len(raw) / np.arange(1, len(raw) + 1)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted.tolist()
