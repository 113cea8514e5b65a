from __future__ import annotations

import numpy as np
import pytest

from mlops_assets.drift.mmd import WHOLE_ROWS, deal, mmd, permutation_test, rbf, split_sums, squared_distances
from mlops_assets.drift.result import DriftInputError, Limits
from mlops_assets.verdict import Verdict
from tests.drift.simulate import alarms, at_most


def test_sums_by_matrix_product_are_the_plain_double_loop() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(9, 3))
    kernel = rbf(squared_distances(rows))
    first, second = range(4), range(4, 9)
    xx = np.mean([kernel[i, j] for i in first for j in first if i != j])
    yy = np.mean([kernel[i, j] for i in second for j in second if i != j])
    xy = np.mean([kernel[i, j] for i in first for j in second])
    sums = split_sums(kernel, (np.arange(9) < 4).astype(float)[:, None])
    assert sums.mmd2[0] == pytest.approx(xx + yy - 2 * xy)


def test_p_value_is_never_zero_and_repeats_with_its_seed() -> None:
    rng = np.random.default_rng(0)
    apart = [(rng.normal(size=(40, 2)), rng.normal(9, 1, size=(40, 2)))]
    p_values = {permutation_test(apart, 99, np.random.default_rng(5))[0] for _ in range(2)}
    assert p_values == {1 / 100}


def test_permutations_suffice_for_the_alpha_asked_for() -> None:
    rng = np.random.default_rng(0)
    result = mmd(rng.normal(size=(60, 2)), rng.normal(4, 1, size=(60, 2)), Limits(alpha=1e-3), permutations=99)
    assert result.verdict is Verdict.FAIL


def test_a_tiny_shift_that_is_significant_stays_quiet() -> None:
    rng = np.random.default_rng(1)
    result = mmd(rng.normal(size=(800, 1)), rng.normal(0.12, 1, size=(800, 1)), Limits(effect=0.02), permutations=199)
    assert result.p_value <= 0.01
    assert result.verdict is Verdict.PASS


def test_vectors_that_are_all_alike_are_quiet() -> None:
    assert mmd(np.ones((50, 4)), np.ones((50, 4))).verdict is Verdict.PASS


def test_too_few_rows_is_no_verdict() -> None:
    assert mmd(np.ones((50, 4)), np.ones((1, 4)), Limits(min_rows=0)).verdict is Verdict.INSUFFICIENT_DATA


@pytest.mark.parametrize("bad", [np.full((50, 4), np.nan), np.ones((50, 3)), np.ones(50)])
def test_what_cannot_be_compared_says_so(bad: np.ndarray) -> None:
    with pytest.raises(DriftInputError):
        mmd(np.ones((50, 4)), bad)


@pytest.mark.slow
def test_false_alarms_stay_within_alpha() -> None:
    def judge(rng: np.random.Generator) -> bool:
        seed = int(rng.integers(1 << 30))
        result = mmd(rng.normal(size=(60, 5)), rng.normal(size=(30, 5)), Limits(0.05), permutations=99, seed=seed)
        return result.verdict is Verdict.FAIL

    assert alarms(judge, 100) <= at_most(0.05, 100)


def test_large_samples_are_dealt_into_blocks_that_hold_every_row_once_and_both_in_proportion() -> None:
    first, second = np.arange(9_000.0)[:, None], np.arange(3_000.0)[:, None]
    blocks = list(deal(first, second, np.random.default_rng(0)))
    assert [(len(a), len(b)) for a, b in blocks] == [(1_500, 500)] * 6
    assert set(np.concatenate([a for a, _ in blocks]).ravel()) == set(range(9_000))
    assert set(np.concatenate([b for _, b in blocks]).ravel()) == set(range(3_000))


def test_a_block_is_bounded_and_has_pairs_of_both_samples_however_unequal_they_are() -> None:
    blocks = list(deal(np.zeros((5, 1)), np.zeros((100_000, 1)), np.random.default_rng(0)))
    assert {len(a) for a, _ in blocks} <= {2, 3}
    assert all(len(b) <= 2_000 for _, b in blocks)


@pytest.mark.slow
def test_blocks_find_a_shift_and_say_that_they_were_used() -> None:
    rng = np.random.default_rng(0)
    large = WHOLE_ROWS // 2 + 1
    quiet = mmd(rng.normal(size=(large, 4)), rng.normal(size=(large, 4)), permutations=99)
    moved = mmd(rng.normal(size=(large, 4)), rng.normal(0.3, 1, size=(large, 4)), permutations=99)
    assert (quiet.verdict, moved.verdict) == (Verdict.PASS, Verdict.FAIL)
    assert quiet.method.endswith("99 permutations in 3 blocks")


@pytest.mark.slow
def test_false_alarms_of_blocks_stay_within_alpha() -> None:
    """The block statistic at a size that can be repeated: three blocks of 40 and 20 rows."""

    def judge(rng: np.random.Generator) -> bool:
        blocks = [(rng.normal(size=(40, 5)), rng.normal(size=(20, 5))) for _ in range(3)]
        return permutation_test(blocks, 99, rng)[0] <= 0.05

    assert alarms(judge, 200) <= at_most(0.05, 200)
