"""A window that is counted over a Ray cluster is the window that one machine counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from mlops_assets.drift.counts import count_window
from mlops_assets.drift.profile import Window, build_profile
from mlops_assets.drift.window import judge_counts
from mlops_assets.resources.ray_counts import count_dataset
from mlops_assets.spec import DriftSpec
from mlops_assets.verdict import Verdict
from tests.drift.test_profile import LABELS, rows

pytestmark = pytest.mark.slow

SPEC = DriftSpec(permutations=99, mmd_rows=50)
PROFILE = build_profile(rows(1000), labels=LABELS, embedding_rows=50)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two workers of this test's own."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def dataset(window: Window, blocks: int) -> Any:
    """The window as rows of a table that lies in several blocks."""
    import ray

    parts = ("probabilities", "predicted", "embeddings")
    columns = {**window.features, **{part: getattr(window, part) for part in parts}}
    table = [{name: values[row] for name, values in columns.items()} for row in range(window.rows)]
    return ray.data.from_items(table, override_num_blocks=blocks)


def as_window(batch: Mapping[str, np.ndarray]) -> Window:
    features = {name: batch[name] for name in PROFILE.numeric.keys() | PROFILE.categorical.keys()}
    return Window(features, batch["probabilities"], batch["predicted"], batch["embeddings"])


def test_a_cluster_and_one_machine_give_the_same_figures() -> None:
    window = rows(700, seed=5)
    counts = count_dataset(PROFILE, dataset(window, blocks=5), as_window)
    assert judge_counts(PROFILE, counts, SPEC) == judge_counts(PROFILE, count_window(PROFILE, window), SPEC)
    assert counts.rows == 700


def test_no_rows_are_insufficient_data() -> None:
    none = dataset(rows(5), blocks=1).filter(lambda _: False)
    assert judge_counts(PROFILE, count_dataset(PROFILE, none, as_window), SPEC).verdict is Verdict.INSUFFICIENT_DATA


def test_a_block_that_cannot_be_counted_ends_in_the_reason() -> None:
    import ray

    with pytest.raises(ray.exceptions.RayTaskError, match="the window has no spend/90d"):
        count_dataset(PROFILE, dataset(rows(40), blocks=2), lambda batch: Window({"country": batch["country"]}))
