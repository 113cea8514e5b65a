"""What a search for leakage found: plain records between `data`, which searches, and `release`, which judges.

They hold figures and no limits, so that the same findings can be judged again under another spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class EntityLeak:
    """What an entity's training labels give away about its test labels, beyond the label mix of their weeks.

    Parameters
    ----------
    test_rows, recurring_rows : all test rows, and those whose entity has training rows.
    share : share of all test rows given away, estimated; 0 is chance.
    share_high : its upper bound, one-sided at `confidence`; never more than recurring / test rows.
    p_value : of the permutation test against "an entity's training labels say nothing of its test labels".
    """

    test_rows: int
    recurring_rows: int
    share: float
    share_high: float
    confidence: float
    p_value: float


@dataclass(frozen=True)
class ColumnLeak:
    """How well one column tells the label, by itself or by where it differs from a column that it mirrors.

    Parameters
    ----------
    columns : the column, or both columns of a mirrored pair.
    effect : Cramér's V, bias-corrected, 0..1.
    p_value : of the chi-squared test of independence, times the number of tests (Bonferroni), at most 1.
    telling : the value that tells most, for people.
    """

    columns: tuple[str, ...]
    effect: float
    p_value: float
    telling: str

    @property
    def name(self) -> str:
        """The column, or ``A against B``."""
        return " against ".join(self.columns)


@dataclass(frozen=True)
class Leakage:
    """Everything that was looked for; None is what could not be determined, which fails closed.

    Parameters
    ----------
    rows : kind of leak that is counted in rows -> rows found.
    columns : every column that was tested, most telling first.
    known : columns that are declared to be known when the event happens.
    """

    rows: Mapping[str, int | None]
    entity: EntityLeak | None
    columns: tuple[ColumnLeak, ...] | None
    known: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; `from_dict` gives back an equal object."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Leakage:
        """The inverse of `to_dict`."""
        entity, columns = document["entity"], document["columns"]
        return cls(
            rows=dict(document["rows"]),
            entity=None if entity is None else EntityLeak(**entity),
            columns=None if columns is None else tuple(_column(column) for column in columns),
            known=tuple(document["known"]),
        )


def _column(document: Mapping[str, Any]) -> ColumnLeak:
    return ColumnLeak(**{**document, "columns": tuple(document["columns"])})
