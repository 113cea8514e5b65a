"""Does a single column tell the label suspiciously well, as one does that was written after the outcome was known?

A pure function over any table with a label. It measures each column by itself, and each pair of columns that mirror
one another (the room reserved, the room given) by where they differ. Figures cannot tell a strong honest predictor
from a leak: that needs somebody's word on when the column is known, which the gate asks for. Not seen: a leak below
the gate's effect floor, one that only several columns together give away, and one in a column that is vouched for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import chi2

from mlops_assets.leaks import ColumnLeak

# A value with so many rows stands for itself; rarer ones are pooled: numbers with their neighbours, others as one.
_OWN_ROWS = 30
_BINS = 10
_MIRRORED = 0.5
"""Cohen's kappa from which two columns count as the same thing, written twice."""


@dataclass(frozen=True)
class _Groups:
    """A column as groups of rows: (n,) group numbers and the name of each group."""

    numbers: NDArray[np.int64]
    names: tuple[str, ...]


def column_leaks(frame: pl.DataFrame, label: str, columns: Sequence[str]) -> tuple[ColumnLeak, ...]:
    """How well each of `columns` tells the label, most telling first.

    H0 of each: column and label are independent. Chi-squared test with a Bonferroni correction over all columns and
    mirrored pairs, so that an independent column has p_value <= alpha with probability at most alpha over them all.
    Effect: Cramér's V with Bergsma's correction (Journal of the Korean Statistical Society 2013), which is 0 on
    average where there is nothing to tell, however many values a column has. Rows count as independent: of rows
    that come in blocks the p-value is too small; the effect is not.

    Parameters
    ----------
    frame : any table; numbers, texts, booleans and times. A missing value is a value like any other.
    label : the column with the label, without missing values.
    columns : those to look at; leave out the row's own id.

    Examples
    --------
    >>> label = np.arange(400) % 2
    >>> table = pl.DataFrame({"label": label, "refunded": label * 9.5, "day": np.arange(400) % 7})
    >>> [(leak.name, round(leak.effect, 2)) for leak in column_leaks(table, "label", ["day", "refunded"])]
    [('refunded', 1.0), ('day', 0.0)]
    """
    target = _numbered(frame[label].cast(pl.String))
    tested: list[tuple[tuple[str, ...], _Groups]] = [((name,), _groups(frame[name])) for name in columns]
    tested += [(pair, differing) for pair in combinations(columns, 2) if (differing := _mirrored(frame, pair))]
    found = [_leak(names, groups, target, len(tested)) for names, groups in tested]
    return tuple(sorted(found, key=lambda leak: (-leak.effect, leak.columns)))


def _leak(columns: tuple[str, ...], groups: _Groups, target: _Groups, tests: int) -> ColumnLeak:
    counts = np.zeros((len(groups.names), len(target.names)))
    np.add.at(counts, (groups.numbers, target.numbers), 1)
    rows, (values, labels) = counts.sum(), counts.shape
    if values < 2 or labels < 2:
        return ColumnLeak(columns, 0.0, 1.0, "the same in every row")
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / rows
    squared = float(((counts - expected) ** 2 / expected).sum())
    degrees = (values - 1) * (labels - 1)
    excess = max(0.0, squared / rows - degrees / (rows - 1))
    room = min(values - 1 - (values - 1) ** 2 / (rows - 1), labels - 1 - (labels - 1) ** 2 / (rows - 1))
    effect = min(1.0, float(np.sqrt(excess / room))) if room > 0 else 0.0
    p_value = min(1.0, float(chi2.sf(squared, degrees)) * tests)
    return ColumnLeak(columns, effect, p_value, _telling(counts, expected, groups.names, target.names))


def _telling(
    counts: NDArray[np.float64], expected: NDArray[np.float64], values: tuple[str, ...], labels: tuple[str, ...]
) -> str:
    """The value and label whose count is furthest from what independence makes of it."""
    value, label = np.unravel_index(((counts - expected) ** 2 / expected).argmax(), counts.shape)
    size = counts[value].sum()
    usual = counts[:, label].sum() / counts.sum()
    share = counts[value, label] / size
    return f"{values[value]}: {share:.0%} of {size:.0f} rows are {labels[label]}, {usual:.0%} of all are"


def _groups(column: pl.Series) -> _Groups:
    """A column's rows by value: missing, each frequent value, and the rest pooled."""
    plain = column.to_physical() if column.dtype.is_temporal() else column
    values = plain.fill_nan(None) if plain.dtype.is_float() else plain
    value = pl.col("value")
    named = pl.DataFrame({"value": values, "size": _sizes(values), "pool": _pooled(values)}).select(
        pl.when(value.is_null())
        .then(pl.lit("missing"))
        .when(pl.col("size") >= _OWN_ROWS)
        .then(value.cast(pl.String))
        .otherwise("pool")
        .alias("name")
    )["name"]
    return _numbered(named)


def _pooled(values: pl.Series) -> pl.Series:
    """The group of each value if it is rare: its tenth of the rare numbers, or one for all."""
    if not values.dtype.is_numeric():
        return pl.Series(["a rarer value"]).new_from_index(0, len(values))
    numbers = values.cast(pl.Float64).to_numpy()
    rare = numbers[(values.is_not_null() & (_sizes(values) < _OWN_ROWS)).to_numpy()]
    edges = np.unique(np.quantile(rare, np.arange(1, _BINS) / _BINS, method="inverted_cdf")) if rare.size else rare
    shown = ["-inf", *(f"{edge:.4g}" for edge in edges), "inf"]
    names = np.array([f"from {low} to {high}" for low, high in pairwise(shown)])
    return pl.Series(names[np.searchsorted(edges, numbers, side="right").clip(max=len(edges))])


def _sizes(values: pl.Series) -> pl.Series:
    """In how many rows the value of each row occurs."""
    return values.to_frame("value").select(pl.len().over("value"))["len"]


def _mirrored(frame: pl.DataFrame, pair: tuple[str, str]) -> _Groups | None:
    """Where two columns differ that are mostly the same; None for columns that are not the same thing."""
    one, other = (_comparable(frame[name]) for name in pair)
    if one.dtype != other.dtype:
        return None
    differs = one.ne_missing(other)
    different = int(differs.sum())
    agreement = 1 - different / max(len(differs), 1)
    if agreement < _MIRRORED or different < _OWN_ROWS:
        return None
    counts = one.value_counts(name="one").join(
        other.rename(one.name).value_counts(name="other"), on=one.name, nulls_equal=True
    )
    by_chance = float((counts["one"] / len(one) * counts["other"] / len(one)).sum())
    if agreement - by_chance < _MIRRORED * (1 - by_chance):
        return None
    return _numbered(pl.select(pl.when(differs).then(pl.lit("different")).otherwise(pl.lit("equal")))["literal"])


def _comparable(column: pl.Series) -> pl.Series:
    return column.cast(pl.Float64) if column.dtype.is_numeric() else column


def _numbered(names: pl.Series) -> _Groups:
    numbers = names.rank("dense").cast(pl.Int64).to_numpy() - 1
    return _Groups(numbers, tuple(names.unique().sort()))
