from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.drift.cells import GRID
from mlops_assets.drift.columns import Column
from mlops_assets.drift.counts import count_window
from mlops_assets.drift.profile import Window, build_profile
from mlops_assets.drift.result import DriftInputError
from mlops_assets.drift.window import judge_counts, judge_window
from mlops_assets.spec import DriftSpec
from mlops_assets.verdict import Verdict
from tests.drift.test_profile import LABELS, rows

SPEC = DriftSpec(permutations=99, mmd_rows=100)
PROFILE = build_profile(rows(1000), labels=LABELS, embedding_rows=100)


def part(window: Window, at: np.ndarray) -> Window:
    def take(values: Column | None) -> np.ndarray | None:
        return None if values is None else np.asarray(values)[at]

    features = {name: np.asarray(values)[at] for name, values in window.features.items()}
    return Window(features, take(window.probabilities), take(window.predicted), take(window.embeddings))


@pytest.mark.slow
@settings(max_examples=15)
@given(st.integers(1, 7), st.integers(0, 100))
def test_however_a_window_is_split_the_answer_is_the_same(parts: int, seed: int) -> None:
    window = rows(300, seed=5)
    order = np.random.default_rng(seed).permutation(300)
    pieces = [count_window(PROFILE, part(window, at)) for at in np.array_split(order, parts)]
    whole = judge_counts(PROFILE, count_window(PROFILE, window), SPEC)
    assert judge_counts(PROFILE, reduce(add, pieces), SPEC) == whole


def test_counts_say_what_the_rows_say() -> None:
    window = rows(300, seed=5)
    exact, counted = judge_window(PROFILE, window, SPEC), judge_counts(PROFILE, count_window(PROFILE, window), SPEC)
    assert counted.verdict is exact.verdict is Verdict.PASS
    for ours, theirs in zip(counted.results, exact.results, strict=True):
        if ours.statistic_name != "mmd":  # another sample of the vectors
            assert ours.statistic == pytest.approx(theirs.statistic, abs=1 / GRID + 1e-3)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(-1, 1))
def test_the_distance_is_at_most_one_cell_too_small(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    profile = build_profile(Window(features={"a": rng.normal(size=20_000)}))
    window = Window(features={"a": rng.normal(shift, 1, size=500)})
    exact = judge_window(profile, window, SPEC).results[0].statistic
    counted = judge_counts(profile, count_window(profile, window), SPEC).results[0].statistic
    assert exact is not None
    assert counted is not None
    assert exact >= counted - 1e-12
    assert exact - counted <= 1 / GRID + 1 / 20_000 + 1e-12


def test_a_part_that_lacks_a_column_is_refused_by_name() -> None:
    with pytest.raises(DriftInputError, match="the window has no spend/90d"):
        count_window(PROFILE, Window(features={"country": np.array(["DE"])}))
