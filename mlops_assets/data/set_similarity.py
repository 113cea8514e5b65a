"""Exact search for similar sets of words, compiled.

Two sets with Jaccard similarity t share a word among their n - ceil(t n) + 1 rarest ones (n words in the set), so
comparing only the sets that meet in this prefix misses nothing, and a sketch of 64 bits rules out most of those.
Sources: Xiao et al., "Efficient similarity joins for near duplicate detection", WWW 2008 (prefix and position
filters); Sandes, Teodoro and Melo, "Bitmap filter", Information Systems 88, 2020. What the sets stand for is left
to `leakage`.
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
    sketches = _sketch(sets.ranks, sets.starts)
    postings, places, ends = _index_prefixes(sets.ranks, sets.starts, first, similarity)
    return _probe(sets.ranks, sets.starts, sketches, first, similarity, postings, places, ends)


@njit(cache=True)
def _prefix(size, similarity):  # type: ignore[no-untyped-def]
    return size - int(np.ceil(similarity * size - _ROUNDING)) + 1 if size else 0


@njit(cache=True)
def _sketch(ranks, starts):  # type: ignore[no-untyped-def]
    """64 bits per set: bit h(word) is on. Bits that differ between two sets count words that they do not share."""
    sketches = np.zeros(len(starts) - 1, np.uint64)
    for i in range(len(sketches)):
        for k in range(starts[i], starts[i + 1]):
            bit = (np.uint64(ranks[k]) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(58)
            sketches[i] |= np.uint64(1) << bit
    return sketches


@njit(cache=True)
def _count_bits(x):  # type: ignore[no-untyped-def]
    x -= (x >> np.uint64(1)) & np.uint64(0x5555555555555555)
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(cache=True)
def _index_prefixes(ranks, starts, first, similarity):  # type: ignore[no-untyped-def]
    """Inverted index of the prefixes of the first sets: word -> set numbers, ascending, and the word's place there."""
    n_words = ranks.max() + 1 if len(ranks) else 0
    ends = np.zeros(n_words + 1, np.int64)
    for i in range(first):
        for k in range(starts[i], starts[i] + _prefix(starts[i + 1] - starts[i], similarity)):
            ends[ranks[k] + 1] += 1
    ends = np.cumsum(ends)
    postings = np.empty(ends[-1], np.int64)
    places = np.empty(ends[-1], np.int64)
    filled = ends[:-1].copy()
    for i in range(first):
        for k in range(starts[i], starts[i] + _prefix(starts[i + 1] - starts[i], similarity)):
            postings[filled[ranks[k]]] = i
            places[filled[ranks[k]]] = k - starts[i]
            filled[ranks[k]] += 1
    return postings, places, ends


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
def _probe(ranks, starts, sketches, first, similarity, postings, places, ends):  # type: ignore[no-untyped-def]
    n = len(starts) - 1 - first
    neighbour = np.full(n, -1, np.int64)
    best = np.zeros(n)
    for j in range(n):
        b, b_end = starts[first + j], starts[first + j + 1]
        size = b_end - b
        for k in range(b, b + _prefix(size, similarity)):
            for p in range(ends[ranks[k]], ends[ranks[k] + 1]):
                i = postings[p]
                a, a_end = starts[i] + places[p], starts[i + 1]
                sizes = size + a_end - starts[i]
                # Jaccard >= s means that of `sizes` words at least s / (1 + s) * sizes are common. When the pair meets
                # for the first time, what they share lies from here on; two cheap bounds rule most pairs out.
                least = max(similarity, best[j])
                needed = least / (1 + least) * sizes - _ROUNDING
                if min(a_end - a, b_end - k) < needed:
                    continue
                if sizes - _count_bits(sketches[i] ^ sketches[first + j]) < 2 * needed:
                    continue
                common = _overlap(ranks, a, a_end, k, b_end)
                jaccard = common / (sizes - common)
                better = jaccard > best[j] or (jaccard == best[j] and i < neighbour[j])
                if jaccard >= similarity - _ROUNDING and better:
                    best[j], neighbour[j] = jaccard, i
    return neighbour, best
