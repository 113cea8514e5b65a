"""What a predictor makes of some messages becomes a window: the same way for reference and production."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from mlops_assets.drift.observed import observe

LABELS = ("query", "refund")


@dataclass(frozen=True)
class Answer:
    probabilities: np.ndarray
    embeddings: np.ndarray


class ByLength:
    """A predictor that takes long messages for refunds and keeps what it was given."""

    labels = LABELS
    feature_names = ("spend", "orders")

    def predict(self, texts: list[str], features: np.ndarray) -> Answer:
        self.given = features
        refund = np.array([len(text) > 5 for text in texts], dtype=float)
        return Answer(np.column_stack([1 - refund, refund]), np.ones((len(texts), 3)))


def test_a_window_holds_features_text_lengths_answers_and_embeddings() -> None:
    features = pl.DataFrame({"orders": [1, 2], "spend": [10.0, None], "other": ["x", "y"]})
    predictor = ByLength()
    window = observe(predictor, ["hello", "money back"], features, ["c1", "c1"])
    assert list(window.features) == ["spend", "orders", "text_length"]
    assert window.features["text_length"].tolist() == [5, 10]
    assert window.predicted.tolist() == ["query", "refund"]
    assert window.probabilities.shape == (2, 2)
    assert window.embeddings.shape == (2, 3)
    assert window.independent == {"spend": 1.0, "orders": 0.5}


def test_messages_with_a_value_and_those_without_are_each_as_independent_as_their_own_customers() -> None:
    spend = [10.0, 10.0, 20.0, None, None, None, None]
    customers = ["c1", "c1", "c2", "new", "new", None, None]
    window = observe(ByLength(), ["hello"] * 7, pl.DataFrame({"spend": spend, "orders": range(7)}), customers)
    assert (window.independent["spend"], window.independent_missing["spend"]) == (3 / 5, 4 / 6)


def test_a_value_that_was_not_known_stays_missing_and_columns_are_matched_by_name() -> None:
    predictor = ByLength()
    window = observe(predictor, ["a", "b"], pl.DataFrame({"orders": [1, 2], "spend": [10.0, None]}), [None, None])
    assert np.isnan(window.features["spend"][1])
    np.testing.assert_array_equal(predictor.given, np.array([[10, 1], [np.nan, 2]], np.float32))


def test_a_model_without_features_is_observed_too() -> None:
    predictor = ByLength()
    predictor.feature_names = ()
    window = observe(predictor, ["a", "b"], pl.DataFrame({"orders": [1, 2]}), [None, "c1"])
    assert list(window.features) == ["text_length"]
    assert predictor.given.shape == (2, 0)
