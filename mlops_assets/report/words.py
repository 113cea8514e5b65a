"""Figures and verdicts as people read them: few digits, no false precision, the same words everywhere."""

from __future__ import annotations

import math

from mlops_assets.verdict import Verdict

VERDICTS = {
    Verdict.PASS: "quiet",
    Verdict.FAIL: "drift",
    Verdict.INSUFFICIENT_DATA: "too little data",
    Verdict.ERROR: "error",
}

_STATISTICS = {
    "kolmogorov_smirnov": "Kolmogorov–Smirnov",
    "chi_squared": "chi-squared",
    "psi": "PSI",
    "mmd": "MMD²",
    "black_box_shift": "black-box shift",
    "missing": "missing values",
    "unseen": "unseen categories",
}


def statistic(name: str) -> str:
    """A statistic as the field calls it.

    >>> statistic("psi"), statistic("energy_distance")
    ('PSI', 'energy distance')
    """
    return _STATISTICS.get(name, name.replace("_", " "))


def number(value: float | None) -> str:
    """Three digits that matter.

    >>> [number(value) for value in (0, 0.01234, 45.0, 98.76, 12345.6, 1e300, None)]
    ['0', '0.0123', '45', '98.8', '12,346', '1e+300', '–']
    """
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value).replace("inf", "∞")
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.3g}"


def percent(share: float) -> str:
    """A share, whole from ten percent up; what is not quite none or all is never rounded to it.

    >>> [percent(share) for share in (0, 0.0001, 0.05, 0.051, 0.288, 0.9999, 1)]
    ['0 %', '< 0.1 %', '5 %', '5.1 %', '29 %', '> 99 %', '100 %']
    """
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.995 <= share < 1:
        return "> 99 %"
    return f"{share * 100:.0f} %" if share >= 0.0995 else f"{share * 100:.1f}".removesuffix(".0") + " %"


def times(strength: float | None) -> str:
    """A multiple of a limit.

    >>> times(1.314), times(0.0283), times(72.4)
    ('1.3 ×', '0.03 ×', '72 ×')
    """
    if strength is None:
        return "–"
    return f"{strength:.{0 if strength >= 10 else 1 if strength >= 0.1 else 2}f} ×"


def probability(p_value: float | None) -> str:
    """A p-value.

    >>> [probability(p) for p in (0.0, 1e-7, 0.0312, 0.74, None)]
    ['< 1e-15', '1e-07', '0.031', '0.74', '–']
    """
    if p_value is None:
        return "–"
    return "< 1e-15" if p_value < 1e-15 else f"{p_value:.2g}"


def count(rows: int, what: str) -> str:
    """Rows of something.

    >>> count(1, "column"), count(12345, "row")
    ('1 column', '12,345 rows')
    """
    return f"{rows:,} {what}{'' if rows == 1 else 's'}"


def days_long(days: float) -> str:
    """A stretch of time.

    >>> days_long(0.587), days_long(38.6)
    ('14 hours', '39 days')
    """
    return f"{days * 24:.0f} hours" if days < 2 else f"{days:.0f} days"
