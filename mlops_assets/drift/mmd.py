"""Maximum mean discrepancy between two samples of vectors, such as sentence embeddings.

Null: both samples come from one distribution. The statistic is the unbiased estimate of MMD^2 under an RBF
kernel whose width is the pooled median distance; the p-value comes from seeded permutations of the pooled
rows, (1 + k) / (1 + N), which is valid at any size. The effect is MMD^2 relative to the mean similarity
within the samples: the share of the mean embedding's squared length that has changed.

Above 5,000 rows in all, the statistic is the mean of the unbiased MMD^2 of blocks: both samples are shuffled
and dealt out, so that each block holds their rows in proportion and has a Gram matrix of its own (at most
2,000 rows of each; of a sample that dwarfs the other, the rest is left out). Rows are permuted within their
block. Under the null every labelling of a block's rows is as likely as the one seen, so this p-value is valid
as well; time and memory grow with the rows, not with their square, at the price of power, since rows of
different blocks are not compared.

Sources: Gretton et al., "A Kernel Two-Sample Test", JMLR 13 (2012), lemma 6; Zaremba, Gretton, Blaschko,
"B-tests: low variance kernel two-sample tests" (2013), for the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mlops_assets.drift.result import DriftInputError, DriftResult, Figures, Limits, judged

NAME = "mmd"
PLAIN_RULE = "MMD p < 0.05"
PERMUTATIONS = 999
WHOLE_ROWS = 5_000  # of both samples together; up to here one Gram matrix holds them all

_BLOCK_ROWS = 2_000
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
    limits = replace(limits, min_rows=max(limits.min_rows, 2))  # one row has no pair

    def figures() -> Figures:
        if first.shape[1] != second.shape[1]:
            raise DriftInputError(f"{column}: reference has {first.shape[1]} dimensions, window {second.shape[1]}")
        rng = np.random.default_rng(seed)
        blocks = list(deal(first, second, rng))
        needed = max(permutations, int(np.ceil(1 / limits.alpha)) - 1)
        p_value, value, similarity = permutation_test(blocks, needed, rng)
        parts = f" in {len(blocks)} blocks" if len(blocks) > 1 else ""
        return Figures(
            statistic=value,
            p_value=p_value,
            effect=max(0.0, value) / max(similarity, 1e-12),
            method=f"unbiased, RBF with pooled median width, {needed} permutations{parts}",
            plain_rule={PLAIN_RULE: p_value < 0.05},
        )

    return judged(NAME, column, len(first), len(second), limits, figures)


def deal(first: Matrix, second: Matrix, rng: np.random.Generator) -> Iterator[tuple[Matrix, Matrix]]:
    """The two samples whole, or in blocks when they are large; a block has two rows or more of each sample."""
    n, m = len(first), len(second)
    if n + m <= WHOLE_ROWS:
        yield first, second
        return
    blocks = min(-(-(n + m) // _BLOCK_ROWS), n // 2, m // 2)
    for ours, theirs in zip(*(np.array_split(rng.permutation(rows), blocks) for rows in (n, m)), strict=True):
        yield first[ours[:_BLOCK_ROWS]], second[theirs[:_BLOCK_ROWS]]


def unbiased_mmd2(reference: Matrix, current: Matrix, sigma: float) -> float:
    """Unbiased MMD^2 under the kernel exp(-d^2 / (2 sigma^2)), for a width that is given."""
    rows = np.concatenate([reference, current])
    kernel = np.exp(-squared_distances(rows) / (2 * sigma**2))
    np.fill_diagonal(kernel, 0.0)
    return float(split_sums(kernel, _membership(len(rows), len(reference))).mmd2[0])


def check_vectors(values: Matrix) -> Matrix:
    """Vectors (rows, dimensions) of floats, refused where one holds a value that is not finite."""
    if values.ndim != 2 or not values.shape[1]:
        raise DriftInputError(f"embeddings: need shape (rows, dimensions), have {values.shape}")
    if values.dtype.kind not in "fiu":
        raise DriftInputError(f"embeddings: need numbers, have {values.dtype}")
    values = values if values.dtype.kind == "f" else values.astype(np.float64)
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


def permutation_test(
    blocks: Sequence[tuple[Matrix, Matrix]], permutations: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """P-value, MMD^2 and mean similarity within the samples, each as the mean over the blocks."""
    permuted, ranked, values, similarities = np.zeros(permutations), 0.0, [], []
    for first, second in blocks:
        kernel = rbf(squared_distances(np.concatenate([first, second])))
        membership = _membership(len(kernel), len(first))
        sums = split_sums(kernel, membership)
        values.append(sums.mmd2[0])
        similarities.append((sums.within_first[0] + sums.within_second[0]) / 2)
        observed, draws = _permute(kernel, membership, permutations, rng)
        ranked += observed
        permuted += draws
    extreme = int((permuted >= ranked).sum())
    return (1 + extreme) / (1 + permutations), float(np.mean(values)), float(np.mean(similarities))


def _permute(
    kernel: np.ndarray, membership: np.ndarray, permutations: int, rng: np.random.Generator
) -> tuple[float, np.ndarray]:
    """MMD^2 of the split as it is and of permuted ones, in single precision, less a constant common to all."""
    rows = len(kernel)
    # The constant cancels in MMD^2; without it single precision suffices to rank the splits, in half the time.
    centred = (kernel - kernel.sum() / (rows * (rows - 1))).astype(np.float32)
    np.fill_diagonal(centred, 0.0)
    first = membership.astype(np.float32)
    draws = []
    for start in range(0, permutations, _CHUNK):
        splits = np.empty((rows, min(_CHUNK, permutations - start)), dtype=np.float32)
        for split in range(splits.shape[1]):
            splits[:, split] = rng.permutation(first[:, 0])
        draws.append(split_sums(centred, splits).mmd2)
    return float(split_sums(centred, first).mmd2[0]), np.concatenate(draws)


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
