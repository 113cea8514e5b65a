"""A window in bounded memory: counts against its reference that are built in parts and merged in any order.

Any split of the rows over chunks or machines gives equal results. Numeric columns are counted between 16,384
frozen reference quantiles, so a Kolmogorov-Smirnov distance is at most 1/16384 + 1/n too small; all other figures
are exact. Embeddings are kept by the smallest digests of their bytes, a sample that does not
depend on who saw which row.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mlops_assets.drift.black_box_shift import check_probabilities
from mlops_assets.drift.cells import Sample
from mlops_assets.drift.columns import Categories, Column, Counts, Floats, like_reference, to_categories, to_numbers
from mlops_assets.drift.frozen_bins import count_bins
from mlops_assets.drift.measured import NumericFigures, present
from mlops_assets.drift.mmd import check_vectors
from mlops_assets.drift.profile import ReferenceProfile, Window
from mlops_assets.drift.result import DriftInputError


@dataclass(frozen=True)
class GridCounts:
    """One numeric column: rows per grid cell and per frozen bin, and missing values."""

    cells: Counts
    bins: Counts
    missing: int

    def __add__(self, other: GridCounts) -> GridCounts:
        return GridCounts(self.cells + other.cells, self.bins + other.bins, self.missing + other.missing)


@dataclass(frozen=True)
class WindowCounts:
    """All that is kept of a part of a window; `+` merges two parts.

    Attributes:
        rows: rows counted.
        reference: fingerprint of the profile that they were counted against.
        numeric, categorical: by column.
        softmax: one per label, or none.
        predicted: rows per predicted label, or None.
        vectors: digest of a vector's bytes -> that vector, the smallest digests only; or None. Equal vectors
            count once: a text that is sent a thousand times is one text.
        vectors_kept: how many digests are kept.
    """

    rows: int
    reference: str
    numeric: Mapping[str, GridCounts] = field(default_factory=dict)
    categorical: Mapping[str, Categories] = field(default_factory=dict)
    softmax: tuple[GridCounts, ...] = ()
    predicted: Categories | None = None
    vectors: Mapping[bytes, np.ndarray] | None = None
    vectors_kept: int = 500

    def __add__(self, other: WindowCounts) -> WindowCounts:
        if self.reference != other.reference:
            raise DriftInputError("two parts were counted against different references; count both against one profile")
        kept = min(self.vectors_kept, other.vectors_kept)
        return WindowCounts(
            rows=self.rows + other.rows,
            reference=self.reference,
            numeric={name: self.numeric[name] + counts for name, counts in other.numeric.items()},
            categorical={name: _together(self.categorical[name], c) for name, c in other.categorical.items()},
            softmax=tuple(a + b for a, b in zip(self.softmax, other.softmax, strict=True)),
            predicted=None
            if self.predicted is None or other.predicted is None
            else _together(self.predicted, other.predicted),
            vectors=None
            if self.vectors is None or other.vectors is None
            else _smallest({**self.vectors, **other.vectors}, kept),
            vectors_kept=kept,
        )


def count_window(profile: ReferenceProfile, part: Window, vectors_kept: int = 500) -> WindowCounts:
    """Count one part of a window. O(rows log grid) time; memory does not grow with the rows.

    Raises:
        DriftInputError: the part lacks what the profile has, or holds what cannot be compared.
    """
    features = {name: present(part.features.get(name), name) for name in (*profile.numeric, *profile.categorical)}
    return WindowCounts(
        rows=part.rows,
        reference=profile.fingerprint,
        numeric={name: _grid(features[name], name, c.sample, c.edges) for name, c in profile.numeric.items()},
        categorical={name: like_reference(features[name], name) for name in profile.categorical},
        softmax=_softmax(profile, part),
        predicted=None
        if profile.predicted is None
        else to_categories(present(part.predicted, "predicted"), "predicted"),
        vectors=None if profile.embeddings is None else _keyed(part, profile.embeddings.shape[1], vectors_kept),
        vectors_kept=vectors_kept,
    )


def count_nothing(profile: ReferenceProfile, vectors_kept: int = 500) -> WindowCounts:
    """The counts of no rows: what a sum over parts begins with."""
    none = np.empty(0)
    part = Window(
        features=dict.fromkeys((*profile.numeric, *profile.categorical), none),
        probabilities=None if profile.probabilities is None else np.empty((0, len(profile.labels))),
        predicted=None if profile.predicted is None else none,
        embeddings=None if profile.embeddings is None else np.empty((0, profile.embeddings.shape[1])),
    )
    return count_window(profile, part, vectors_kept)


@dataclass(frozen=True)
class CountedWindow:
    """The figures of a window that was counted."""

    profile: ReferenceProfile
    counts: WindowCounts

    def __post_init__(self) -> None:
        if self.counts.reference != self.profile.fingerprint:
            raise DriftInputError("the window was counted against another reference; count it against this profile")

    @property
    def rows(self) -> int:
        """Rows of the window."""
        return self.counts.rows

    @property
    def independent(self) -> Mapping[str, float]:
        """Counts do not know which rows were of one entity: each counts for one."""
        return {}

    @property
    def independent_missing(self) -> Mapping[str, float]:
        """Likewise."""
        return {}

    def numeric(self, name: str) -> NumericFigures:
        """A numeric column."""
        column = self.counts.numeric[name]
        return NumericFigures(
            self.profile.numeric[name].sample.cells.distance(column.cells), column.bins, column.missing
        )

    def categorical(self, name: str) -> Categories:
        """A categorical column."""
        return self.counts.categorical[name]

    def softmax(self) -> tuple[Floats, int]:
        """Distance per label, and rows."""
        pairs = zip(self.profile.softmax, self.counts.softmax, strict=True)
        return np.array([reference.cells.distance(column.cells) for reference, column in pairs]), self.counts.rows

    def predicted(self) -> Categories:
        """Rows per predicted label."""
        assert self.counts.predicted is not None, "asked for a part that the profile does not have"
        return self.counts.predicted

    def embeddings(self, rows: int, seed: int) -> np.ndarray:  # noqa: ARG002 - the digests are the draw
        """The kept vectors, at most `rows` of them."""
        reference, vectors = self.profile.embeddings, self.counts.vectors
        assert reference is not None, "asked for a part that the profile does not have"
        assert vectors is not None, "counted against this profile, so it has what the profile has"
        return np.array([vectors[key] for key in sorted(vectors)[:rows]]).reshape(-1, reference.shape[1])


def _grid(values: Column, name: str, reference: Sample, edges: Floats) -> GridCounts:
    numbers = to_numbers(values, name)
    return GridCounts(reference.cells.count(numbers.values), count_bins(edges, numbers.values), numbers.missing)


def _softmax(profile: ReferenceProfile, part: Window) -> tuple[GridCounts, ...]:
    if profile.probabilities is None:
        return ()
    values = check_probabilities(np.asarray(present(part.probabilities, "probabilities")), profile.labels)
    columns = zip(profile.labels, profile.softmax, values.T, strict=True)
    return tuple(_grid(column, label, reference, np.array([])) for label, reference, column in columns)


def _keyed(part: Window, dimensions: int, kept: int) -> dict[bytes, np.ndarray]:
    vectors = np.ascontiguousarray(check_vectors(np.asarray(present(part.embeddings, "embeddings"))))
    if vectors.shape[1] != dimensions:
        raise DriftInputError(f"embeddings: reference has {dimensions} dimensions, window {vectors.shape[1]}")
    keyed = {hashlib.blake2b(row.tobytes(), digest_size=16).digest(): row for row in vectors}
    return _smallest(keyed, kept)


def _smallest(vectors: Mapping[bytes, np.ndarray], kept: int) -> dict[bytes, np.ndarray]:
    return {key: vectors[key] for key in sorted(vectors)[:kept]}


def _together(first: Categories, second: Categories) -> Categories:
    counts = Counter(first.counts)
    counts.update(second.counts)
    return Categories(dict(sorted(counts.items())), first.missing + second.missing)
