"""Does the test set repeat the training set? Exact and near-duplicate texts, by the words they share.

Near means a Jaccard similarity of the two sets of words at or above a limit. The search is exact: it reports
every test text that has such a neighbour, not a sample of them. What to do about leakage is the caller's choice;
`remove_leaking` drops the repeated test rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from mlops_assets.data.set_similarity import WordSets, nearest_above
from mlops_assets.data.split import TEST

# a word, or one character of a script that writes without spaces
_WORD = r"[\w--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]]+|[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]"


@dataclass(frozen=True)
class LeakageReport:
    """Which test texts repeat a training text.

    Attributes:
        similarity: Jaccard similarity of words from which two texts count as near-duplicates.
        train_rows: Texts searched through.
        test_rows: Texts looked for.
        exact: Pairs (test index, train index), shape (k, 2), of texts equal but for case and white space.
        near: Pairs of the other test texts with their most similar training text, where that reaches `similarity`.
        near_similarity: Jaccard similarity of each pair of `near`.
    """

    similarity: float
    train_rows: int
    test_rows: int
    exact: np.ndarray
    near: np.ndarray
    near_similarity: np.ndarray

    @property
    def leaking(self) -> np.ndarray:
        """Indices of the test texts that repeat a training text, ascending."""
        return np.sort(np.concatenate([self.exact[:, 0], self.near[:, 0]]))

    def summary(self) -> dict[str, float | int]:
        """The counts, for evidence and metadata."""
        return {
            "similarity": self.similarity,
            "train_rows": self.train_rows,
            "test_rows": self.test_rows,
            "exact": len(self.exact),
            "near": len(self.near),
        }


def find_leakage(train_texts: Sequence[str], test_texts: Sequence[str], similarity: float) -> LeakageReport:
    """Find the test texts that repeat a training text; one pair is reported for each.

    Case, punctuation and the order and number of repetitions of words do not matter for a near-duplicate; a text
    without any word (``"?!"``) is compared exactly only.

    Parameters:
        similarity: Jaccard limit in (0, 1].

    Raises:
        ValueError: `similarity` is outside (0, 1].

    >>> report = find_leakage(["Where is my order?", "hello"], ["where is  my order?", "where is my order", "bye"], 0.9)
    >>> report.exact.tolist(), report.near.tolist()
    ([[0, 0]], [[1, 0]])
    """
    if not 0 < similarity <= 1:
        raise ValueError(f"similarity must lie in (0, 1], not {similarity}")
    texts = pl.Series([*train_texts, *test_texts], dtype=pl.String)
    plain = texts.str.normalize("NFKC").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
    learned = plain[: len(train_texts)].to_frame("text").with_row_index("train")
    learned = learned.unique("text", keep="first", maintain_order=True)  # else each copy of a text meets each other one
    held_out = plain[len(train_texts) :]
    exact = _equal_pairs(learned, held_out)
    sets = WordSets.of(pl.concat([learned["text"], held_out.rename("text")]).str.extract_all(_WORD))
    neighbour, jaccard = nearest_above(sets, learned.height, similarity)
    neighbour[exact[:, 0]] = -1
    near = np.flatnonzero(neighbour >= 0)
    return LeakageReport(
        similarity=similarity,
        train_rows=len(train_texts),
        test_rows=len(test_texts),
        exact=exact,
        near=np.column_stack([near, learned["train"].to_numpy().astype(np.int64)[neighbour[near]]]),
        near_similarity=jaccard[near],
    )


def remove_leaking(split_frame: pl.DataFrame, similarity: float) -> tuple[pl.DataFrame, LeakageReport]:
    """Drop the test rows that repeat a train or validation row.

    Parameters:
        split_frame: Rows with `text` and `part`, as `split.split` returns them.

    Returns:
        The remaining rows in their order, and what was found *before* the removal; its test and train indices
        count the test rows and the other rows of `split_frame`, each in its order.
    """
    is_test = split_frame["part"] == TEST
    learned, held_out = split_frame.filter(~is_test), split_frame.filter(is_test)
    report = find_leakage(learned["text"].to_list(), held_out["text"].to_list(), similarity)
    rows = np.flatnonzero(is_test.to_numpy())[report.leaking]
    keep = np.ones(split_frame.height, dtype=bool)
    keep[rows] = False
    return split_frame.filter(pl.Series(keep)), report


def _equal_pairs(learned: pl.DataFrame, test: pl.Series) -> np.ndarray:
    """(test index, equal train index), shape (k, 2); `learned` has each `text` once, with its index `train`."""
    pairs = test.to_frame("text").with_row_index("test").join(learned, on="text").sort("test")
    return pairs.select("test", "train").to_numpy().astype(np.int64).reshape(-1, 2)
