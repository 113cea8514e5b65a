"""What the training rows of an entity give away about its test rows.

Customers recur by design, in the test set as in production, so that an overlap alone is no leak. What is measured is
whether an entity's training labels predict its test labels beyond the mix of labels of the weeks they are from. Not
seen: a pattern that does not show in how often the labels agree, such as labels that alternate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mlops_assets.data.split import TEST
from mlops_assets.leaks import EntityLeak

_PERMUTATIONS = 999
_RESAMPLES = 1000


@dataclass(frozen=True)
class _Recurring:
    """Entities with rows on both sides: m training rows of e entities, c labels.

    `week` and `label` of every training row (n,); `entity` of each, -1 for the others (n,); `asked` (e, c) test rows.
    """

    week: NDArray[np.int64]
    label: NDArray[np.int64]
    entity: NDArray[np.int64]
    asked: NDArray[np.float64]


def entity_leak(frame: pl.DataFrame, *, confidence: float, seed: int) -> EntityLeak:
    """Measure it on split rows.

    The figure is the agreement of a test row's label with that of a training row of the same entity, drawn at
    random: the excess over what the label mix of the training rows' weeks would give, relative to the excess of
    certainty (as Cohen's kappa), times the share of test rows that recur. A set in which every recurring row is
    given away has that share; one in which entities say nothing has 0.

    H0: within a week it does not matter which entity a training label belongs to. Exact permutation test,
    p = (1 + k) / (1 + N) (Phipson and Smyth 2010), so that p <= alpha with probability at most alpha. The upper
    bound is the Bayesian bootstrap over entities with one imaginary row that is given away, see `mlops_assets.f1`.

    Parameters
    ----------
    frame : rows with `customer_id`, `label`, `event_timestamp` and `part`; a row without an entity recurs nowhere.
    confidence : of the upper bound.
    """
    test_rows = int((frame["part"] == TEST).sum())
    recurring = _recurring(frame)
    rows = int(recurring.asked.sum())
    if rows == 0:
        return EntityLeak(test_rows, 0, 0.0, 0.0, confidence, 1.0)
    agreed, expected = _agreement(recurring)
    excess, room = (agreed - expected).sum(axis=1), (recurring.asked - expected).sum(axis=1)
    reach, rng = rows / test_rows, np.random.default_rng(seed)
    return EntityLeak(
        test_rows=test_rows,
        recurring_rows=rows,
        share=reach * _ratio(excess.sum(), room.sum()),
        share_high=reach * _upper(excess, room, room.sum() / rows, confidence, rng),
        confidence=confidence,
        p_value=_p_value(recurring, float(agreed.sum()), rng),
    )


def _recurring(frame: pl.DataFrame) -> _Recurring:
    learned, held_out = frame.filter(pl.col("part") != TEST), frame.filter(pl.col("part") == TEST)
    both = learned["customer_id"].drop_nulls().unique().sort()
    both = both.filter(both.is_in(held_out["customer_id"].drop_nulls().unique().implode()))
    labels = frame["label"].unique().sort()
    asked = np.zeros((len(both), len(labels)))
    tested = held_out.filter(pl.col("customer_id").is_in(both.implode()))
    np.add.at(asked, (_position(tested["customer_id"], both), _position(tested["label"], labels)), 1)
    week = learned["event_timestamp"].dt.truncate("1w").rank("dense").cast(pl.Int64).to_numpy() - 1
    return _Recurring(week, _position(learned["label"], labels), _position(learned["customer_id"], both), asked)


def _position(values: pl.Series, among: pl.Series) -> NDArray[np.int64]:
    """Where each value stands in the sorted `among`; -1 for one that does not."""
    codes = pl.DataFrame({"value": among, "code": np.arange(len(among))}, schema_overrides={"value": values.dtype})
    found = pl.DataFrame({"value": values}).join(codes, on="value", how="left", maintain_order="left")["code"]
    return found.fill_null(-1).to_numpy().astype(np.int64)


def _agreement(rows: _Recurring) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Test rows of each entity and label (e, c) that agree with its training rows, and that would by the label mix."""
    mine = rows.entity >= 0
    mix = np.zeros((rows.week.max() + 1, rows.asked.shape[1]))
    np.add.at(mix, (rows.week, rows.label), 1)
    mix /= mix.sum(axis=1, keepdims=True)
    own, usual = np.zeros_like(rows.asked), np.zeros_like(rows.asked)
    np.add.at(own, (rows.entity[mine], rows.label[mine]), 1)
    np.add.at(usual, rows.entity[mine], mix[rows.week[mine]])
    size = own.sum(axis=1, keepdims=True)
    return rows.asked * own / size, rows.asked * usual / size


def _p_value(rows: _Recurring, agreed: float, rng: np.random.Generator) -> float:
    """Share of permutations of the training labels within their weeks that agree as well."""
    sizes = np.bincount(rows.entity[rows.entity >= 0], minlength=len(rows.asked))
    worth = rows.asked / sizes[:, None]
    drawn = np.zeros(_PERMUTATIONS)
    for week in range(rows.week.max() + 1):
        here = rows.week == week
        mine = rows.entity[here] >= 0
        shuffled = rng.permuted(np.tile(rows.label[here].astype(np.int16), (_PERMUTATIONS, 1)), axis=1)[:, mine]
        drawn += worth[rows.entity[here][mine], shuffled].sum(axis=1)
    return float((1 + (drawn >= agreed - 1e-9).sum()) / (1 + _PERMUTATIONS))


def _upper(
    excess: NDArray[np.float64], room: NDArray[np.float64], row: float, confidence: float, rng: np.random.Generator
) -> float:
    """Upper bound of excess / room over entities; one imaginary entity more has a row with no doubt left."""
    weights = rng.standard_exponential((_RESAMPLES, len(room) + 1))
    given = weights @ np.append(excess, row)
    doubt = weights @ np.append(room, row)
    return float(np.quantile(np.divide(given, doubt, out=np.zeros_like(given), where=doubt > 0), confidence))


def _ratio(excess: float, room: float) -> float:
    return float(excess / room) if room > 0 else 0.0
