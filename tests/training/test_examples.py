"""Rows become arrays without losing or inventing anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from mlops_assets.training.examples import ExamplesError, class_weights, from_frame, recency_weights

LABELS = ("greeting", "refund")
DEFAULTS = {"orders_90d": 0.0, "spend_90d": 7.0}


def frame(**columns: list[object]) -> pl.DataFrame:
    rows: dict[str, list[object]] = {
        "text": ["hello", "money back"],
        "label": ["greeting", "refund"],
        "spend_90d": [None, float("nan")],
        "orders_90d": [3, 4],
    }
    return pl.DataFrame(rows | columns, strict=False)


def test_features_come_in_declared_order_with_gaps_filled() -> None:
    rows = from_frame(frame(), LABELS, DEFAULTS, np.ones((2, 4)))
    assert rows.features.tolist() == [[3.0, 7.0], [4.0, 7.0]]
    assert rows.labels.tolist() == [0, 1]
    assert rows.embeddings.dtype == np.float32


def test_a_model_without_features_has_none() -> None:
    assert from_frame(frame(), LABELS, {}, np.ones((2, 4))).features.shape == (2, 0)


@pytest.mark.parametrize("label", [None, "spam"])
def test_a_label_that_is_not_declared_is_refused_by_name(label: str | None) -> None:
    with pytest.raises(ExamplesError, match=f"1 rows have labels that are not declared \\({label}\\)"):
        from_frame(frame(label=["greeting", label]), LABELS, DEFAULTS, np.ones((2, 4)))


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ExamplesError, match="spend_90d"):
        from_frame(frame().drop("spend_90d"), LABELS, DEFAULTS, np.ones((2, 4)))


def test_embeddings_of_other_rows_are_refused() -> None:
    with pytest.raises(ExamplesError, match="3 embeddings do not belong to 2 rows"):
        from_frame(frame(), LABELS, DEFAULTS, np.ones((3, 4)))


def test_no_rows_are_refused() -> None:
    with pytest.raises(ExamplesError, match="no rows"):
        from_frame(frame().clear(), LABELS, DEFAULTS, np.ones((0, 4)))


def test_recency_counts_back_from_the_close_of_the_data() -> None:
    until = datetime(2026, 5, 16, tzinfo=UTC)
    times = pl.Series([until - timedelta(days=days) for days in (0.5, 7, 7.5, 60)])
    assert recency_weights(times, until, 7, 5.0).tolist() == [5.0, 5.0, 1.0, 1.0]
    assert recency_weights(times, until, 0, 5.0).tolist() == [1.0] * 4


def test_a_rare_class_weighs_more_and_an_absent_one_nothing() -> None:
    weights = class_weights(np.array([0] * 90 + [1] * 10), 3)
    assert weights[1] / weights[0] == pytest.approx(3.0)
    assert weights[2] == 0.0
