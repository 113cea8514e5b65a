"""F1 as the field computes it, and its confidence bounds, for one model or several on the same rows.

The one place where confusions become weighted F1 and a distribution of it: the evaluation of a training run, the
gate and the daily quality all ask here, so that they can be compared. What is good enough is for others to say.
Messages of one customer resemble each other, so where customers are given they are what is independent, not rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]

RESAMPLES = 2000
# So many customers at once are given weights, to need no more memory for many customers than for few.
_AT_ONCE = 1000


def customer_numbers(customers: Iterable[str | None]) -> Labels:
    """A number (n,) for each row's customer; who is not known is taken for a customer of its own.

    >>> customer_numbers(["b", None, "a", "b", None])
    array([0, 1, 2, 0, 3])
    """
    numbers: dict[object, int] = {}
    keys = (row if customer is None else customer for row, customer in enumerate(customers))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


@dataclass(frozen=True)
class F1:
    """F1 of k models.

    Parameters
    ----------
    weighted : shape (k,) of the rows themselves, or (k, resamples).
    per_label : shape (k, labels) or (k, resamples, labels); a label that never occurs counts 0.
    """

    weighted: Floats
    per_label: Floats


@dataclass(frozen=True)
class Answered:
    """Rows by their true label and the answers of k models to them: what F1 depends on, and nothing else.

    Parameters
    ----------
    cells : the distinct rows (true label, answer of each model), label numbers, shape (m, 1 + k).
    counts : how many rows each stands for, shape (m,).
    labels : how many labels there are.
    together : how many of them each customer with several rows has, shape (customers, m), sparse; all others are alone.

    Examples
    --------
    >>> rows = Answered.of(np.array([0, 0, 1, 1]), [np.array([0, 0, 1, 0])], 2)
    >>> rows.f1().per_label.round(3)
    array([[0.8  , 0.667]])
    """

    cells: Labels
    counts: Floats
    labels: int
    together: sparse.csr_array | None = None

    @classmethod
    def of(cls, truth: Labels, answers: Sequence[Labels], labels: int, customers: Labels | None = None) -> Answered:
        """Count rows.

        Parameters
        ----------
        truth : label numbers 0..labels-1, shape (n,), as is each of `answers`.
        customers : whose row each is, any numbers, shape (n,); None: rows are independent.
        """
        rows = np.stack([truth, *answers], axis=1)
        cells, cell, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
        return cls(cells, counts.astype(np.float64), labels, _together(cell, len(cells), customers))

    def f1(self) -> F1:
        """F1 as scikit-learn's ``f1_score(average="weighted", zero_division=0)``, of each model."""
        exact = _f1(self.cells, self.counts[None, :], self.labels)
        return F1(exact.weighted[:, 0], exact.per_label[:, 0, :])

    def resampled(self, seed: int, resamples: int = RESAMPLES) -> F1:
        """Its distribution over reweighted rows, paired: one draw serves all models; resamples along axis 1.

        Method: the Bayesian bootstrap (Rubin, Annals of Statistics 1981), which gives every customer an exponential
        weight, and with it all rows of that customer. Rows that are alone are exchangeable within a cell, whose
        weight then is gamma with their number as shape: thousands of draws in milliseconds, whatever the number.
        """
        rng, together = np.random.default_rng(seed), self._of_several
        alone = np.maximum(self.counts - together.sum(axis=0), 0.0)
        draws = rng.standard_gamma(alone, size=(resamples, alone.size))
        for first in range(0, together.shape[0], _AT_ONCE):
            some = together[first : first + _AT_ONCE]
            draws += rng.standard_exponential((resamples, some.shape[0])) @ some
        return _f1(self.cells, draws, self.labels)

    def with_customer_lost(self, label: int | None = None) -> Answered:
        """One imaginary customer more, whom the first model answers wrong and every other right.

        This one has as many rows as others have at the mean: one, where each row is a customer. With it the lower
        quantiles of `resampled` are lower confidence bounds of the first model's F1, or of its difference to
        another's. A bootstrap knows of no error that it has not seen; of accuracy, where each row is a customer, the
        quantile with this row *is* the exact bound of Clopper and Pearson (Biometrika 1934; Brown, Cai and DasGupta,
        Statistical Science 2001), at every confidence. Of F1 it is approximate; the tests confirm by simulation, at
        100 to 3,000 rows and F1 of 0.92 to 1, and for 200 customers of about four rows each, that it lies above the
        truth no more often than it says. Where customers have one to 60 rows and errors depend on who asks (intraclass
        correlation 0.3) it does so in 8 % instead of 5; a bound that knows of no customers, in 23 %.

        Parameters
        ----------
        label : the rows' true label, one that occurs; None: any, as often as it occurs.
        """
        share = self._label_shares()
        seen = np.flatnonzero(share)
        size = self._mean_customer(label)
        if label is not None:
            share = np.eye(self.labels)[label]
        labels = max(self.labels, 2)
        # a wrong answer costs two labels some F1, if the other one occurs; with a single label there is no other
        others = seen if len(seen) > 1 else np.append(seen, (seen[0] + 1) % labels)
        lost = [(t, o) for t in np.flatnonzero(share) for o in others if o != t]
        cells = np.array([[t, o, *[t] * (self.cells.shape[1] - 2)] for t, o in lost])
        weights = np.array([share[t] / (len(others) - 1) for t, _ in lost])
        return self._with_customer(cells, size * weights, labels)

    def with_customer_right(self) -> Answered:
        """One imaginary customer more, whom all models answer right: `with_customer_lost`, for upper bounds."""
        share = self._label_shares()
        seen = np.flatnonzero(share)
        cells = np.repeat(seen[:, None], self.cells.shape[1], axis=1)
        return self._with_customer(cells, self._mean_customer() * share[seen], self.labels)

    @property
    def _of_several(self) -> sparse.csr_array:
        """`together`, empty where no customer has several rows."""
        return sparse.csr_array((0, len(self.counts))) if self.together is None else self.together

    def _mean_customer(self, label: int | None = None) -> float:
        """Rows of a customer, at the mean; of one true label: over those who have any, and these rows alone."""
        of = np.full(len(self.cells), True) if label is None else self.cells[:, 0] == label
        theirs = self._of_several[:, of].sum(axis=1)
        rows = self.counts[of].sum()
        return float(rows / (rows - theirs.sum() + np.count_nonzero(theirs)))

    def _with_customer(self, cells: Labels, rows: Floats, labels: int) -> Answered:
        """With a customer who has `rows` of `cells`, numbers that need not be whole."""
        return Answered(
            np.concatenate([self.cells, cells]),
            np.concatenate([self.counts, rows]),
            labels,
            sparse.block_diag([self._of_several, sparse.csr_array(rows[None])], format="csr"),
        )

    def _label_shares(self) -> Floats:
        """Share of each true label, shape (labels,)."""
        counts = np.bincount(self.cells[:, 0], self.counts, self.labels).astype(np.float64)
        shares: Floats = counts / counts.sum()
        return shares


def f1_bounds(rows: Answered, confidence: float, seed: int) -> tuple[float, float]:
    """Lower and upper confidence bound of the first model's weighted F1, each one-sided at `confidence`.

    H0 of either: the true F1 lies beyond it. Error: about 1 - confidence at most, see `Answered.with_customer_lost`.

    >>> rows = Answered.of(np.zeros(300, int), [np.zeros(300, int)], 2)
    >>> [round(bound, 3) for bound in f1_bounds(rows, 0.95, seed=0)]
    [0.995, 1.0]
    """
    low = rows.with_customer_lost().resampled(seed).weighted[0]
    high = rows.with_customer_right().resampled(seed).weighted[0]
    return float(np.quantile(low, 1.0 - confidence)), float(np.quantile(high, confidence))


def weighted_f1(confusions: Floats) -> Floats:
    """Weighted F1 (k,) of k confusions (k, c, c) that need not be whole numbers: true label down, answer across.

    >>> weighted_f1(np.array([[[2.0, 0.0], [1.0, 1.0]]])).round(3)
    array([0.733])
    """
    hits, support = np.diagonal(confusions, axis1=1, axis2=2).astype(float), confusions.sum(axis=2)
    size = support + confusions.sum(axis=1)
    f1 = np.divide(2.0 * hits, size, out=np.zeros_like(hits), where=size > 0)
    shares: Floats = (f1 * support).sum(axis=1) / support.sum(axis=1)
    return shares


def _together(cell: Labels, cells: int, customers: Labels | None) -> sparse.csr_array | None:
    """Rows of each customer with several in each cell; None where all have one. `cell` is that of each row, (n,)."""
    if customers is None:
        return None
    _, number, rows = np.unique(customers, return_inverse=True, return_counts=True)
    several = rows > 1
    if not several.any():
        return None
    position, among = np.cumsum(several) - 1, several[number]
    where = position[number[among]], cell[among]
    return sparse.csr_array((np.ones(len(where[0])), where), shape=(int(several.sum()), cells))  # sums what repeats


def _f1(cells: Labels, draws: Floats, labels: int) -> F1:
    """F1 of each model under each of the weightings `draws` (r, m) of the cells."""
    one_hot = np.eye(labels)
    truth = one_hot[cells[:, 0]]
    true_count = draws @ truth
    per_label = []
    for column in range(1, cells.shape[1]):
        answered = one_hot[cells[:, column]]
        hits = draws @ (truth * answered)
        size = true_count + draws @ answered
        per_label.append(np.divide(2.0 * hits, size, out=np.zeros_like(hits), where=size > 0))
    stacked = np.stack(per_label)
    weights = true_count / true_count.sum(axis=1, keepdims=True)
    return F1(np.einsum("krl,rl->kr", stacked, weights), stacked)
