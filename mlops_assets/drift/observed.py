"""What a model makes of some messages, as a window of the drift engine.

Reference and production windows are both made here, by the exported predictor itself, so that they can
only differ in their messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import polars as pl

from mlops_assets.drift.profile import Window

REFERENCE = "reference.safetensors"  # beside the exported model: it is registered, and takes effect, with its version


class Prediction(Protocol):
    """Answers for n messages."""

    @property
    def probabilities(self) -> np.ndarray: ...

    @property
    def embeddings(self) -> np.ndarray: ...


class Predicts(Protocol):
    """The part of an exported model that is needed here."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def feature_names(self) -> tuple[str, ...]: ...

    def predict(self, texts: Sequence[str], features: np.ndarray, /) -> Prediction: ...


def observe(
    predictor: Predicts, texts: Sequence[str], features: pl.DataFrame, customers: Sequence[str | None]
) -> Window:
    """Run the predictor over n messages.

    Args:
        texts: n messages.
        features: n rows with a column per feature of the predictor; null where a default stood in.
        customers: who sent each of the n; None: nobody known, a customer of one message.

    Returns:
        Their customer features and text lengths, softmax outputs, predicted labels and embeddings.
    """
    columns = features.select(pl.col(name).cast(pl.Float64) for name in predictor.feature_names)
    answer = predictor.predict(texts, columns.to_numpy().astype(np.float32).reshape(len(texts), -1))
    there = {column.name: ~np.isnan(column.to_numpy()) for column in columns}
    who = np.array(customers, dtype=object)
    lengths = np.array([len(text) for text in texts], dtype=float)
    return Window(
        features={**{name: columns[name].to_numpy() for name in columns.columns}, "text_length": lengths},
        probabilities=answer.probabilities,
        predicted=np.array(predictor.labels)[answer.probabilities.argmax(axis=1)],
        embeddings=answer.embeddings,
        independent={name: independent_share(who[known]) for name, known in there.items()},
        independent_missing={name: independent_share(who[~known]) for name, known in there.items()},
    )


def independent_share(customers: Sequence[str | None] | np.ndarray) -> float:
    """How many independent values a feature of customers has, per message: all messages of one repeat it.

    Asked of the messages that have a value and of those that lack it, each by themselves: who is not known has no
    features and counts once a message, which would make up for a customer who writes often and has them.

    The inverse of Kish's design effect for weights, n / sum k^2 over customers of k messages ("Survey Sampling", 1965).

    >>> independent_share(["a", "a", "b", None]), independent_share([])
    (0.6666666666666666, 1.0)
    """
    known = Counter(customer for customer in customers if customer is not None)
    anonymous = len(customers) - known.total()
    return len(customers) / (anonymous + sum(k * k for k in known.values())) if len(customers) else 1.0
