"""Exact search for similar sets of words, compiled.

Two sets with Jaccard similarity t share a word among their n - ceil(t n) + 1 rarest ones (n words in the set), so
comparing only the sets that meet in this prefix misses nothing. Source: Chaudhuri, Ganti and Kaushik, "A primitive
operator for similarity joins in data cleaning", ICDE 2006; Xiao et al., "Efficient similarity joins for near
duplicate detection", WWW 2008. What the sets stand for is left to `leakage`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numba import njit

_ROUNDING = 1e-9  # a product such as 0.9 * 10 may lie a hair above the whole number it stands for


@dataclass(frozen=True)
class WordSets:
    """Sets of words as ranks, rarest word first: set i is ``ranks[starts[i]:starts[i + 1]]``, ascending.

    Attributes:
        ranks: Word numbers, shape (total,), int64; 0 is the word in the fewest sets.
        starts: Shape (sets + 1,), int64.
    """

    ranks: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, words: pl.Series) -> WordSets:
        """From one list of words per set; a word that repeats within a list counts once."""
        long = pl.DataFrame({"words": words}).with_row_index("set").explode("words").drop_nulls().unique()
        rarest = long.group_by("words").len().sort("len", "words").with_row_index("rank").select("words", "rank")
        long = long.join(rarest, on="words").sort("set", "rank")
        sizes = np.bincount(long["set"].to_numpy(), minlength=len(words))
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return cls(long["rank"].to_numpy().astype(np.int64), starts)


def nearest_above(sets: WordSets, first: int, similarity: float) -> tuple[np.ndarray, np.ndarray]:
    """For each set from number `first` on, the most similar of the sets before `first`.

    Returns:
        Its number (-1 where none reaches `similarity`) and the Jaccard similarity (0 there), one per later set;
        of equally similar sets, the first.
    """
    postings, starts = _index_prefixes(sets.ranks, sets.starts, first, similarity)
    return _probe(sets.ranks, sets.starts, first, similarity, postings, starts)


@njit(cache=True)
def _prefix(size: int, similarity: float) -> int:
    return size - int(np.ceil(similarity * size - _ROUNDING)) + 1 if size else 0


@njit(cache=True)
def _index_prefixes(ranks, starts, first, similarity):  # type: ignore[no-untyped-def]
    """Inverted index of the prefixes of the first sets: word -> set numbers, ascending."""
    n_words = ranks.max() + 1 if len(ranks) else 0
    ends = np.zeros(n_words + 1, np.int64)
    for i in range(first):
        for k in range(starts[i], starts[i] + _prefix(starts[i + 1] - starts[i], similarity)):
            ends[ranks[k] + 1] += 1
    ends = np.cumsum(ends)
    postings = np.empty(ends[-1], np.int64)
    filled = ends[:-1].copy()
    for i in range(first):
        for k in range(starts[i], starts[i] + _prefix(starts[i + 1] - starts[i], similarity)):
            postings[filled[ranks[k]]] = i
            filled[ranks[k]] += 1
    return postings, ends


@njit(cache=True)
def _overlap(ranks, a, a_end, b, b_end):  # type: ignore[no-untyped-def]
    """Number of common elements of two ascending runs."""
    common = 0
    while a < a_end and b < b_end:
        if ranks[a] == ranks[b]:
            common += 1
            a += 1
            b += 1
        elif ranks[a] < ranks[b]:
            a += 1
        else:
            b += 1
    return common


@njit(cache=True)
def _probe(ranks, starts, first, similarity, postings, ends):  # type: ignore[no-untyped-def]
    n = len(starts) - 1 - first
    neighbour = np.full(n, -1, np.int64)
    best = np.zeros(n)
    seen_by = np.full(first, -1, np.int64)
    for j in range(n):
        b, b_end = starts[first + j], starts[first + j + 1]
        size = b_end - b
        for k in range(b, b + _prefix(size, similarity)):
            for p in range(ends[ranks[k]], ends[ranks[k] + 1]):
                i = postings[p]
                other = starts[i + 1] - starts[i]
                # sets of too different a size cannot be similar enough, whatever they share
                if seen_by[i] == j or min(size, other) < similarity * max(size, other) - _ROUNDING:
                    continue
                seen_by[i] = j
                common = _overlap(ranks, starts[i], starts[i + 1], b, b_end)
                jaccard = common / (size + other - common)
                if jaccard >= similarity - _ROUNDING and (
                    jaccard > best[j] or (jaccard == best[j] and i < neighbour[j])
                ):
                    best[j], neighbour[j] = jaccard, i
    return neighbour, best
