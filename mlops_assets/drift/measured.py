"""What judging asks of a window, and the exact answers from its rows.

A window that was counted in parts gives the same answers from its counts (see `counts`); `window` does not
know which of the two it judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mlops_assets.drift import kolmogorov_smirnov as ks
from mlops_assets.drift.black_box_shift import check_probabilities
from mlops_assets.drift.columns import Categories, Column, Counts, Floats, like_reference, to_categories, to_numbers
from mlops_assets.drift.frozen_bins import count_bins
from mlops_assets.drift.profile import ReferenceProfile, Window, sample_rows
from mlops_assets.drift.result import DriftInputError


@dataclass(frozen=True)
class NumericFigures:
    """One numeric column of a window beside its reference.

    Attributes:
        distance: Kolmogorov-Smirnov distance from the reference; 0 when either has no values.
        bins: rows per frozen bin.
        missing: values that are not there.
    """

    distance: float
    bins: Counts
    missing: int

    @property
    def rows(self) -> int:
        """Values that are there."""
        return int(self.bins.sum())


class Measured(Protocol):
    """A window's figures. Each method raises `DriftInputError` where it cannot say."""

    @property
    def rows(self) -> int:
        """Rows of the window."""

    @property
    def independent(self) -> Mapping[str, float]:
        """As in `Window`."""

    @property
    def independent_missing(self) -> Mapping[str, float]:
        """As in `Window`."""

    def numeric(self, name: str) -> NumericFigures:
        """A column that is numeric in the reference."""

    def categorical(self, name: str) -> Categories:
        """A column that is categorical in the reference."""

    def softmax(self) -> tuple[Floats, int]:
        """Kolmogorov-Smirnov distance of each label's probability, and the rows it rests on."""

    def predicted(self) -> Categories:
        """Rows per predicted label."""

    def embeddings(self, rows: int, seed: int) -> np.ndarray:
        """At most `rows` of the window's vectors."""


@dataclass(frozen=True)
class MeasuredWindow:
    """The figures of a window whose rows are at hand."""

    profile: ReferenceProfile
    window: Window

    @property
    def rows(self) -> int:
        """Rows of the window."""
        return self.window.rows

    @property
    def independent(self) -> Mapping[str, float]:
        """As the window says."""
        return self.window.independent

    @property
    def independent_missing(self) -> Mapping[str, float]:
        """As the window says."""
        return self.window.independent_missing

    def numeric(self, name: str) -> NumericFigures:
        """A numeric column."""
        reference = self.profile.numeric[name]
        numbers = to_numbers(present(self.window.features.get(name), name), name)
        distance = ks.distance(reference.sample, numbers.values)
        return NumericFigures(distance, count_bins(reference.edges, numbers.values), numbers.missing)

    def categorical(self, name: str) -> Categories:
        """A categorical column."""
        return like_reference(present(self.window.features.get(name), name), name)

    def softmax(self) -> tuple[Floats, int]:
        """Distance per label, and rows."""
        values = np.asarray(present(self.window.probabilities, "probabilities"))
        columns = check_probabilities(values, self.profile.labels).T
        pairs = zip(self.profile.softmax, columns, strict=True)
        return np.array([ks.distance(reference, column) for reference, column in pairs]), len(values)

    def predicted(self) -> Categories:
        """Rows per predicted label."""
        return to_categories(present(self.window.predicted, "predicted"), "predicted")

    def embeddings(self, rows: int, seed: int) -> np.ndarray:
        """A seeded sample of the vectors."""
        return sample_rows(np.asarray(present(self.window.embeddings, "embeddings")), rows, seed)


def present(values: Column | None, name: str) -> Column:
    """The values, or an error that says which part the window lacks."""
    if values is None:
        raise DriftInputError(f"the window has no {name}, which its reference has")
    return values
