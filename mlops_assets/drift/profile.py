"""The reference of a model, prepared once, so that a window is judged without touching the reference rows.

Holds sorted values, frozen bins, category counts, sorted softmax columns and a seeded sample of embeddings, in
one safetensors file, which is mapped into memory, not read: a small window touches a few of its pages. Which
statistics are drawn from it is decided in `window`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mlops_assets.drift.black_box_shift import check_probabilities
from mlops_assets.drift.cells import Sample
from mlops_assets.drift.columns import Column, Counts, Floats, is_numeric, to_categories, to_numbers
from mlops_assets.drift.frozen_bins import count_sorted, freeze_edges
from mlops_assets.drift.mmd import check_vectors
from mlops_assets.drift.result import DriftInputError
from mlops_assets.storage import write_atomic

FORMAT = 3

_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64}


class ProfileError(ValueError):
    """A profile cannot be built or read; the message says what to mend."""


@dataclass(frozen=True)
class Window:
    """Rows that are judged together, or that a reference is built from. What is None or absent is not judged.

    Raises:
        DriftInputError: a part has no rows to speak of, or another number of them.

    Attributes:
        features: column name -> values, one per row; numbers, or anything else for categories.
        probabilities: softmax outputs (rows, labels) in the order of the profile's labels.
        predicted: predicted label of each row.
        embeddings: vectors (rows, dimensions).
        independent: column name -> its independent values per value that is there, 0..1; 1 where it is not named.
            Below 1 where rows of one entity repeat its value, which makes them count for less.
        independent_missing: the same per value that is missing.
    """

    features: Mapping[str, Column] = field(default_factory=dict)
    probabilities: np.ndarray | None = None
    predicted: Column | None = None
    embeddings: np.ndarray | None = None
    independent: Mapping[str, float] = field(default_factory=dict)
    independent_missing: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {name: part.shape[0] if part.shape else None for name, part in self._parts()}
        if len(set(lengths.values())) > 1 or None in lengths.values():
            told = ", ".join(f"{name} has {rows}" for name, rows in lengths.items())
            raise DriftInputError(f"each part of a window needs one entry per row, but {told} rows")

    @property
    def rows(self) -> int:
        """Rows of each part; 0 if there is none."""
        return next((len(part) for _, part in self._parts()), 0)

    def _parts(self) -> Iterator[tuple[str, Column]]:
        yield from ((f"feature {name}", values) for name, values in self.features.items())
        others = (self.probabilities, self.predicted, self.embeddings)
        named = zip(("probabilities", "predicted", "embeddings"), others, strict=True)
        yield from ((name, part) for name, part in named if part is not None)


@dataclass(frozen=True)
class NumericReference:
    """One numeric column: its sorted values, frozen bin edges with their counts, missing values."""

    values: Floats
    edges: Floats
    counts: Counts
    missing: int

    @cached_property
    def sample(self) -> Sample:
        """The values as a sample that windows are compared with."""
        return Sample(self.values)


@dataclass(frozen=True)
class CategoricalReference:
    """One categorical column: rows per category, missing values."""

    counts: Mapping[str, int]
    missing: int


@dataclass(frozen=True)
class ReferenceProfile:
    """What a window is compared with.

    Attributes:
        rows: reference rows.
        labels: the model's labels, in the order of its probabilities.
        probabilities: sorted softmax columns (labels, rows), or None.
        predicted: rows per predicted label, or None.
        embeddings: a sample of the reference's vectors (sample, dimensions), or None.
        independent, independent_missing: as in `Window`.
        about: where the reference came from: snapshot digest, model version.
    """

    rows: int
    labels: tuple[str, ...] = ()
    numeric: Mapping[str, NumericReference] = field(default_factory=dict)
    categorical: Mapping[str, CategoricalReference] = field(default_factory=dict)
    probabilities: Floats | None = None
    predicted: Mapping[str, int] | None = None
    embeddings: np.ndarray | None = None
    independent: Mapping[str, float] = field(default_factory=dict)
    independent_missing: Mapping[str, float] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all that a window is counted in: counts of two parts can be added if theirs is the same."""
        counted = hashlib.blake2b(repr((list(self.categorical), self.labels, self.rows)).encode(), digest_size=16)
        for name, column in self.numeric.items():
            counted.update(name.encode() + column.sample.cells.edges.tobytes() + column.edges.tobytes())
        for sample in self.softmax:
            counted.update(sample.cells.edges.tobytes())
        return counted.hexdigest()

    @cached_property
    def softmax(self) -> tuple[Sample, ...]:
        """The probabilities of each label as samples; none if the profile has none."""
        return () if self.probabilities is None else tuple(map(Sample, self.probabilities))

    def save(self, path: Path) -> Path:
        """Write the profile to `path`, atomically."""
        from safetensors.numpy import save

        header, arrays = _to_parts(self)
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        return write_atomic(path, save(contiguous, metadata={"profile": json.dumps(header)}))

    @staticmethod
    def load(path: Path) -> ReferenceProfile:
        """Open a profile that `save` wrote; its arrays stay on disk until they are touched.

        Raises:
            ProfileError: the file is missing, damaged, or of another format.
        """
        try:
            header, arrays = _map_arrays(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ProfileError(f"{path}: not a readable reference profile ({error}); build it again") from error
        if header.get("format") != FORMAT:
            raise ProfileError(f"{path}: profile format {header.get('format')}, this version reads {FORMAT}")
        return _from_parts(header, arrays)


def build_profile(
    reference: Window,
    *,
    labels: Sequence[str] = (),
    embedding_rows: int = 500,
    seed: int = 0,
    about: Mapping[str, str] | None = None,
) -> ReferenceProfile:
    """Prepare the reference once; take rows that the model was not trained on, or confidences will look high.

    Args:
        reference: the rows that later windows are compared with.
        labels: the model's labels in the order of the probabilities' columns.
        embedding_rows: vectors kept for the MMD test, drawn with `seed`.

    Raises:
        ProfileError: there are no rows.
        DriftInputError: a part holds what it may not.

    >>> profile = build_profile(Window(features={"spend": np.array([3.0, 1.0, 2.0])}))
    >>> profile.numeric["spend"].values
    array([1., 2., 3.])
    """
    if not reference.rows:
        raise ProfileError("the reference has no rows; give it the held-out rows that the model was tested on")
    numeric = {n: _numeric(v, n) for n, v in reference.features.items() if is_numeric(v)}
    return ReferenceProfile(
        rows=reference.rows,
        labels=tuple(labels),
        numeric=numeric,
        categorical={n: _categorical(v, n) for n, v in reference.features.items() if n not in numeric},
        probabilities=_sorted_columns(reference.probabilities, labels),
        predicted=None if reference.predicted is None else to_categories(reference.predicted, "predicted").counts,
        embeddings=None if reference.embeddings is None else sample_rows(reference.embeddings, embedding_rows, seed),
        independent=dict(reference.independent),
        independent_missing=dict(reference.independent_missing),
        about=dict(about or {}),
    )


def sample_rows(vectors: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """At most `rows` of the vectors, drawn without replacement, in their order; checked to be finite."""
    checked = check_vectors(np.asarray(vectors))
    if len(checked) <= rows:
        return checked
    return checked[np.sort(np.random.default_rng(seed).choice(len(checked), rows, replace=False))]


def _numeric(values: Column, name: str) -> NumericReference:
    numbers = to_numbers(values, name)
    ordered = np.sort(numbers.values)
    edges = freeze_edges(ordered) if len(ordered) else ordered
    return NumericReference(ordered, edges, count_sorted(edges, ordered), numbers.missing)


def _categorical(values: Column, name: str) -> CategoricalReference:
    categories = to_categories(values, name)
    return CategoricalReference(categories.counts, categories.missing)


def _sorted_columns(probabilities: np.ndarray | None, labels: Sequence[str]) -> Floats | None:
    return None if probabilities is None else np.sort(check_probabilities(probabilities, labels), axis=0).T


def _to_parts(profile: ReferenceProfile) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What goes into the JSON header, and the arrays beside it; columns are numbered, their names may hold anything."""
    header = {
        "format": FORMAT,
        "rows": profile.rows,
        "labels": list(profile.labels),
        "numeric": [{"name": name, "missing": column.missing} for name, column in profile.numeric.items()],
        "categorical": [
            {"name": name, "missing": column.missing, "counts": dict(column.counts)}
            for name, column in profile.categorical.items()
        ],
        "predicted": None if profile.predicted is None else dict(profile.predicted),
        "independent": dict(profile.independent),
        "independent_missing": dict(profile.independent_missing),
        "about": dict(profile.about),
    }
    arrays: dict[str, np.ndarray] = {}
    for position, column in enumerate(profile.numeric.values()):
        arrays |= {f"numeric{position}_{part}": getattr(column, part) for part in ("values", "edges", "counts")}
    for part in ("probabilities", "embeddings"):
        if (values := getattr(profile, part)) is not None:
            arrays[part] = values
    return header, arrays


def _map_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The profile's header, and its arrays mapped from the file, whose layout is eight bytes of length, JSON, data."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        index = json.loads(file.read(length))
    header = json.loads(index.pop("__metadata__")["profile"])
    data = np.asarray(np.memmap(path, np.uint8, "r"))[8 + length :]
    arrays = {}
    for name, entry in index.items():
        start, end = entry["data_offsets"]
        arrays[name] = data[start:end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return header, arrays


def _from_parts(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> ReferenceProfile:
    return ReferenceProfile(
        rows=header["rows"],
        labels=tuple(header["labels"]),
        numeric={
            column["name"]: NumericReference(
                arrays[f"numeric{position}_values"],
                arrays[f"numeric{position}_edges"],
                arrays[f"numeric{position}_counts"],
                column["missing"],
            )
            for position, column in enumerate(header["numeric"])
        },
        categorical={c["name"]: CategoricalReference(c["counts"], c["missing"]) for c in header["categorical"]},
        probabilities=arrays.get("probabilities"),
        predicted=header["predicted"],
        embeddings=arrays.get("embeddings"),
        independent=header["independent"],
        independent_missing=header.get("independent_missing", {}),  # profiles that were registered before have none
        about=header["about"],
    )
