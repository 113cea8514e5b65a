"""Turns whatever a column holds into what the statistics take: floats, or counts per category, and missing ones.

The reference decides whether a column is numeric or categorical; a window that holds something else is an
error with a name, never a silent cast: digits in text are no numbers, and numbers are no categories.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import numpy as np
import numpy.typing as npt
import polars as pl

from mlops_assets.drift.result import DriftInputError

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Column = np.ndarray | pl.Series


@dataclass(frozen=True)
class Numbers:
    """The values that are there (float64, any order, infinities kept) and how many are missing."""

    values: Floats
    missing: int


@dataclass(frozen=True)
class Categories:
    """How often each category occurs, by name in sorted order, and how many values are missing."""

    counts: dict[str, int]
    missing: int

    @property
    def rows(self) -> int:
        """Values that are there."""
        return sum(self.counts.values())


def is_numeric(values: Column) -> bool:
    """Whether a column holds numbers (or booleans) by its type, not by its content."""
    if isinstance(values, pl.Series):
        return values.dtype.is_numeric() or values.dtype == pl.Boolean
    return values.dtype.kind in "fiub"


def to_numbers(values: Column, column: str) -> Numbers:
    """Values of a numeric column as floats, NaN and null counted as missing.

    Raises:
        DriftInputError: a value is neither a number nor missing.

    >>> to_numbers(np.array([1.0, np.nan, 3.0]), "spend")
    Numbers(values=array([1., 3.]), missing=1)
    """
    floats = _as_floats(values, column)
    if floats.ndim != 1:
        raise DriftInputError(f"column {column}: needs one value per row, has shape {floats.shape}")
    absent = np.isnan(floats)
    missing = int(np.count_nonzero(absent))
    return Numbers(floats[~absent] if missing else floats, missing)


def to_categories(values: Column, column: str) -> Categories:
    """Rows per category of a column; every value counts under its text, null and NaN as missing.

    Raises:
        DriftInputError: a value cannot be told from a missing one.

    >>> to_categories(np.array(["b", "a", None, "b"], dtype=object), "country")
    Categories(counts={'a': 1, 'b': 2}, missing=1)
    """
    series = values if isinstance(values, pl.Series) else _as_series(values, column)
    if series.dtype.is_float():
        series = series.fill_nan(None)
    missing = series.null_count()
    tallied = series.drop_nulls().value_counts()
    names = [str(name) for name in tallied.to_series(0).to_list()]
    counts: dict[str, int] = {}
    for name, count in sorted(zip(names, tallied.to_series(1).to_list(), strict=True)):
        counts[name] = counts.get(name, 0) + count
    return Categories(counts, missing)


def like_reference(values: Column, column: str) -> Categories:
    """The same for a column whose reference holds categories: there numbers are another schema, unless all are missing.

    Raises:
        DriftInputError: the column holds numbers.
    """
    categories = to_categories(values, column)
    if categories.rows and is_numeric(values):
        raise DriftInputError(f"column {column}: the reference holds categories, the window numbers ({values.dtype})")
    return categories


def _as_floats(values: Column, column: str) -> Floats:
    """One float per value, NaN where it is missing; what is neither a number nor missing is refused."""
    if isinstance(values, pl.Series):
        if values.null_count() == len(values):
            return np.full(len(values), np.nan)
        if is_numeric(values):
            return values.cast(pl.Float64).to_numpy()
    elif is_numeric(values):
        return values.astype(np.float64, copy=False)
    elif values.dtype.kind == "O":
        return np.array([_as_float(value, column) for value in values.flat]).reshape(values.shape)
    raise DriftInputError(f"column {column}: the reference holds numbers, the window does not ({values.dtype})")


def _as_float(value: object, column: str) -> float:
    if value is None:
        return np.nan
    if not isinstance(value, Real | np.bool_):
        raise DriftInputError(f"column {column}: the reference holds numbers, the window a {type(value).__name__}")
    try:
        return float(value)
    except OverflowError as error:
        raise DriftInputError(f"column {column}: holds an integer beyond the range of float64") from error


def _as_series(values: np.ndarray, column: str) -> pl.Series:
    if values.ndim != 1:
        raise DriftInputError(f"column {column}: needs one value per row, has shape {values.shape}")
    if values.dtype.kind in "fiubU":
        return pl.Series(values)
    # Anything else is told apart by its text.
    return pl.Series([None if _absent(v, column) else str(v) for v in values.astype(object)], dtype=pl.String)


def _absent(value: object, column: str) -> bool:
    """Whether a value is missing: None, or not equal to itself as NaN is."""
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError, ArithmeticError) as error:
        kind = type(value).__name__
        raise DriftInputError(
            f"column {column}: a {kind} is no category; what is missing must be None or NaN"
        ) from error
