"""Maximum mean discrepancy between two samples of vectors, such as sentence embeddings.

Null: both samples come from one distribution. The statistic is the unbiased estimate of MMD^2 under an RBF
kernel whose width is the pooled median distance; the p-value comes from seeded permutations of the pooled
rows, (1 + k) / (1 + N), which is valid at any size. The effect is MMD^2 relative to the mean similarity
within the samples: the share of the mean embedding's squared length that has changed.

Source: Gretton et al., "A Kernel Two-Sample Test", JMLR 13 (2012), lemma 6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlops_assets.drift.result import DriftInputError, DriftResult, Limits, decide, insufficient, too_small

NAME = "mmd"
PLAIN_RULE = "MMD p < 0.05"
PERMUTATIONS = 999

_CHUNK = 512  # permutations per matrix product: bounded memory, still one large product

Matrix = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Sums:
    """Mean kernel values within the two samples and between them, one entry per split of the rows."""

    within_first: np.ndarray
    within_second: np.ndarray
    between: np.ndarray

    @property
    def mmd2(self) -> np.ndarray:
        """Unbiased MMD^2."""
        return self.within_first + self.within_second - 2 * self.between


def mmd(
    reference: Matrix,
    current: Matrix,
    limits: Limits = Limits(effect=0.02),
    *,
    column: str = "*",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> DriftResult:
    """Compare two samples of vectors (rows, dimensions).

    Permutations are raised where `limits.alpha` could not be reached with the number asked for.

    Raises:
        DriftInputError: shapes differ, or a value is not finite.

    >>> rng = np.random.default_rng(0)
    >>> mmd(rng.normal(size=(100, 8)), rng.normal(0.5, 1, size=(100, 8))).verdict.value
    'fail'
    """
    first, second = check_vectors(reference), check_vectors(current)
    n, m = len(first), len(second)
    limits = Limits(limits.alpha, limits.effect, max(limits.min_rows, 2))
    if too_small(n, m, limits):
        return insufficient(NAME, column, n, m, limits)
    if first.shape[1] != second.shape[1]:
        raise DriftInputError(f"{column}: reference has {first.shape[1]} dimensions, window {second.shape[1]}")
    kernel = rbf(squared_distances(np.concatenate([first, second])))
    needed = max(permutations, int(np.ceil(1 / limits.alpha)) - 1)
    p_value, observed = permutation_test(kernel, n, needed, seed)
    value = float(observed.mmd2[0])
    effect = max(0.0, value) / max(float(observed.within_first[0] + observed.within_second[0]) / 2, 1e-12)
    return DriftResult(
        statistic_name=NAME,
        column=column,
        statistic=value,
        p_value=p_value,
        threshold=None,
        effect=effect,
        n_reference=n,
        n_current=m,
        method=f"unbiased, RBF with pooled median width, {needed} permutations",
        verdict=decide(p_value, effect, limits),
        plain_rule={PLAIN_RULE: p_value < 0.05},
    )


def unbiased_mmd2(reference: Matrix, current: Matrix, sigma: float) -> float:
    """Unbiased MMD^2 under the kernel exp(-d^2 / (2 sigma^2)), for a width that is given."""
    rows = np.concatenate([reference, current])
    kernel = np.exp(-squared_distances(rows) / (2 * sigma**2))
    np.fill_diagonal(kernel, 0.0)
    return float(split_sums(kernel, _membership(len(rows), len(reference))).mmd2[0])


def check_vectors(values: Matrix) -> Matrix:
    """Vectors (rows, dimensions), refused where one holds a value that is not finite."""
    if values.ndim != 2:
        raise DriftInputError(f"embeddings: need shape (rows, dimensions), have {values.shape}")
    if not np.isfinite(values).all():
        rows = int((~np.isfinite(values)).any(axis=1).sum())
        raise DriftInputError(f"embeddings: {rows} of {len(values)} rows are not finite; look at the encoder")
    return values


def squared_distances(rows: Matrix) -> np.ndarray:
    """Squared Euclidean distances between all rows, float64, exactly zero on the diagonal."""
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)  # less cancellation below
    lengths = np.einsum("ij,ij->i", centred, centred)
    squares = centred @ centred.T
    squares *= -2  # in place from here on: the matrix is all the memory there is
    squares += lengths[:, None]
    squares += lengths
    np.maximum(squares, 0.0, out=squares)
    np.fill_diagonal(squares, 0.0)
    return squares


def rbf(squares: np.ndarray) -> np.ndarray:
    """Gram matrix exp(-d^2 / median d^2) with a zero diagonal, as the unbiased sums need it."""
    rows = len(squares)
    middle = rows + rows * (rows - 1) // 2  # every pair stands twice, behind the zeros of the diagonal
    ranked = squares.astype(np.float32).ravel()
    ranked.partition(middle)
    kernel = squares * (-1.0 / (float(ranked[middle]) or 1.0))
    np.exp(kernel, out=kernel)
    np.fill_diagonal(kernel, 0.0)
    return kernel


def permutation_test(kernel: np.ndarray, n: int, permutations: int, seed: int) -> tuple[float, Sums]:
    """P-value of the split into the first `n` rows and the rest, and the sums of that split."""
    rows = len(kernel)
    # A constant cancels in MMD^2; without it single precision suffices to rank the splits, in half the time.
    centred = (kernel - kernel.sum() / (rows * (rows - 1))).astype(np.float32)
    np.fill_diagonal(centred, 0.0)
    first = _membership(rows, n).astype(np.float32)
    observed = split_sums(centred, first).mmd2[0]
    rng = np.random.default_rng(seed)
    extreme = 0
    for start in range(0, permutations, _CHUNK):
        splits = np.empty((rows, min(_CHUNK, permutations - start)), dtype=np.float32)
        for split in range(splits.shape[1]):
            splits[:, split] = rng.permutation(first[:, 0])
        extreme += int((split_sums(centred, splits).mmd2 >= observed).sum())
    return (1 + extreme) / (1 + permutations), split_sums(kernel, first)


def split_sums(kernel: np.ndarray, first: np.ndarray) -> Sums:
    """Mean kernel values of splits (rows, splits), each column one where a row is in the first sample."""
    n = float(first[:, 0].sum())
    m = len(kernel) - n
    reach = kernel @ first
    degrees = kernel.sum(axis=1, dtype=np.float64)
    total = degrees.sum()
    inner = np.einsum("ij,ij->j", first, reach, dtype=np.float64)
    across = degrees @ first - inner
    outer = total - inner - 2 * across
    return Sums(inner / (n * (n - 1)), outer / (m * (m - 1)), across / (n * m))


def _membership(rows: int, n: int) -> np.ndarray:
    return (np.arange(rows) < n).astype(np.float64)[:, None]
