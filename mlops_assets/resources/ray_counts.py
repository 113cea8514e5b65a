"""Counts a window over a Ray cluster: each block where it lies, the counts added up here.

The result is that of one machine, since counts do not depend on how the rows were split; what they mean is
`mlops_assets.drift.counts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np

from mlops_assets.drift.counts import WindowCounts, count_nothing, count_window
from mlops_assets.drift.profile import ReferenceProfile, Window

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.data import Dataset

AsWindow = Callable[[Mapping[str, np.ndarray]], Window]


def count_dataset(
    profile: ReferenceProfile, rows: Dataset, as_window: AsWindow = Window, vectors_kept: int = 500
) -> WindowCounts:
    """Count the rows of a Ray dataset against a reference, on the cluster that this process is connected to.

    Args:
        rows: one row per prediction.
        as_window: makes a window of a batch of columns; as given, all of them are features.
        vectors_kept: embeddings kept for the MMD test.

    Raises:
        ray.exceptions.RayTaskError: a batch could not be counted; its cause is the `DriftInputError` that says why.
    """
    import ray

    nothing = count_nothing(profile, vectors_kept)  # also makes the profile's cells, once for all workers
    parts = rows.map_batches(_count, batch_format="numpy", fn_args=(ray.put(profile), as_window, vectors_kept))
    return reduce(add, (row["counts"] for row in parts.iter_rows()), nothing)


def _count(
    batch: Mapping[str, np.ndarray], profile: ObjectRef, as_window: AsWindow, vectors_kept: int
) -> dict[str, np.ndarray]:
    import ray

    counts = np.empty(1, dtype=object)
    counts[0] = count_window(ray.get(profile), as_window(batch), vectors_kept)
    return {"counts": counts}
