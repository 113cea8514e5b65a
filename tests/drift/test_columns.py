from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pytest

from mlops_assets.drift.columns import is_numeric, to_categories, to_numbers
from mlops_assets.drift.result import DriftInputError


@pytest.mark.parametrize(
    "values",
    [np.array([1.0, np.nan, 2.0]), pl.Series([1, None, 2]), np.array([1, None, 2.0], dtype=object)],
)
def test_numbers_are_told_from_missing_ones_whatever_holds_them(values: np.ndarray | pl.Series) -> None:
    numbers = to_numbers(values, "spend")
    assert (numbers.values.tolist(), numbers.missing) == ([1.0, 2.0], 1)


@pytest.mark.parametrize(
    "values",
    [
        np.array(["b", None, "a", "b"], dtype=object),
        pl.Series(["b", None, "a", "b"]),
        np.array(["b", np.nan, "a", "b"], dtype=object),
    ],
)
def test_categories_are_told_from_missing_ones_whatever_holds_them(values: np.ndarray | pl.Series) -> None:
    categories = to_categories(values, "country")
    assert (categories.counts, categories.missing, categories.rows) == ({"a": 1, "b": 2}, 1, 3)


def test_mixed_types_are_categories_by_their_text() -> None:
    assert to_categories(np.array([1, "1", True], dtype=object), "code").counts == {"1": 2, "True": 1}


def test_text_where_numbers_belong_is_refused_by_name() -> None:
    with pytest.raises(DriftInputError, match="column spend"):
        to_numbers(np.array(["much"], dtype=object), "spend")


def test_the_type_decides_what_a_column_is() -> None:
    assert is_numeric(np.array([True, False]))
    assert is_numeric(pl.Series([1, 2]))
    assert not is_numeric(np.array(["1", "2"]))
    assert not is_numeric(pl.Series([datetime(2026, 1, 1)]))
