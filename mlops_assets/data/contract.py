"""The engine of a data contract: a table goes in, good rows and quarantined ones come out.

Runs pandera lazily on polars, so that every fault of every row is found in one pass. Knows nothing of messages
or events; their rules are in `validation` and `customer_features`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from mlops_assets.data.tables import cast_values, require_columns

if TYPE_CHECKING:  # its import takes a second, and who loads the graph checks no row
    import pandera.polars as pa

_READABLE = "__readable"
_PRESENT = "present"


class TooManyBadRows(ValueError):
    """So large a share of a batch broke the contract that the batch itself is in doubt."""

    def __init__(self, validated: Validated, max_share: float) -> None:
        worst = "; ".join(
            f"{count} x {column}: {reason} (first at row {row})"
            for column, reason, count, row in _worst_faults(validated.bad)
        )
        super().__init__(
            f"{validated.bad_rows} of {validated.rows} rows ({validated.bad_share:.1%}) break the data contract, "
            f"more than the allowed {max_share:.1%}: {worst}. "
            "Mend the source, or raise `data.max_quarantined_share` if this is expected."
        )
        self.validated = validated
        self.max_share = max_share


@dataclass(frozen=True)
class Rule:
    """One check of one column: a row passes where `holds` is true or null.

    Attributes:
        check: Short name, as it stands in the quarantine.
        reason: What is wrong with a row that fails, and how to mend it.
        holds: Expression over the typed columns, one Boolean per row.
    """

    check: str
    reason: str
    holds: pl.Expr


@dataclass(frozen=True)
class ColumnContract:
    """What one column must hold; null is allowed where no rule forbids it."""

    dtype: pl.DataType
    unreadable: str
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Validated:
    """A table after its contract.

    Attributes:
        good: The rows that pass, with canonical types, in their original order.
        bad: One row per fault: the original values as strings, then `row` (position in the table that was
            validated, from 0), `column`, `check`, `reason`. A row with two faults is there twice.
    """

    good: pl.DataFrame
    bad: pl.DataFrame

    @property
    def bad_rows(self) -> int:
        return self.bad["row"].n_unique()

    @property
    def rows(self) -> int:
        return self.good.height + self.bad_rows

    @property
    def bad_share(self) -> float:
        return self.bad_rows / self.rows if self.rows else 0.0


def enforce_share(validated: Validated, max_share: float) -> Validated:
    """Hand `validated` through unless more than `max_share` (0..1) of its rows are bad.

    Raises:
        TooManyBadRows: names the share and the most frequent faults, with the first example of each.
    """
    if validated.bad_share > max_share:
        raise TooManyBadRows(validated, max_share)
    return validated


def apply_contract(frame: pl.DataFrame, contract: Mapping[str, ColumnContract]) -> Validated:
    """Check every row of `frame` against `contract`; columns without a contract are dropped from the good rows.

    Raises:
        MissingColumn: a column of the contract is absent.
    """
    require_columns(frame, list(contract))
    typed = {name: cast_values(frame[name], column.dtype) for name, column in contract.items()}
    cast = [(values.is_not_null() | frame[name].is_null()).alias(name + _READABLE) for name, values in typed.items()]
    checked = pl.DataFrame([*typed.values(), *cast])
    faults = _find_faults(checked, contract)
    good = checked.select(list(contract))
    if faults.height:
        passes = pl.Series([True]).new_from_index(0, frame.height).scatter(faults["row"].unique(), False)
        good = good.filter(passes)
    originals = frame[faults["row"]]
    return Validated(good, pl.DataFrame([*(_as_strings(c) for c in originals.get_columns()), *faults.get_columns()]))


def required(contract: Mapping[str, ColumnContract]) -> list[str]:
    """The columns in which no value may be missing."""
    return [name for name, column in contract.items() if any(rule.check == _PRESENT for rule in column.rules)]


def present(column: str, reason: str = "is missing") -> Rule:
    """A rule that a value is there; an unreadable one has its own fault and is not called missing."""
    return Rule(_PRESENT, reason, pl.col(column).is_not_null() | ~readable(column))


def readable(column: str) -> pl.Expr:
    """True where the value of `column` was missing or could be cast; for rules that read a missing value."""
    return pl.col(column + _READABLE)


def _find_faults(checked: pl.DataFrame, contract: Mapping[str, ColumnContract]) -> pl.DataFrame:
    import pandera.polars as pa
    from pandera.errors import SchemaErrors

    reasons = {(name, rule.check): rule.reason for name, column in contract.items() for rule in _rules(name, column)}
    columns = {
        name: pa.Column(column.dtype, [_to_check(rule) for rule in _rules(name, column)], nullable=True)
        for name, column in contract.items()
    }
    try:
        pa.DataFrameSchema(columns).validate(checked, lazy=True)
    except SchemaErrors as errors:
        cases = errors.failure_cases
    else:
        return pl.DataFrame(schema={"row": pl.Int64, "column": pl.String, "check": pl.String, "reason": pl.String})
    reason = pl.Series([reasons[key] for key in cases.select("column", "check").iter_rows()], dtype=pl.String)
    return cases.select(pl.col("index").cast(pl.Int64).alias("row"), "column", "check", reason.alias("reason")).sort(
        "row", maintain_order=True
    )


def _rules(name: str, column: ColumnContract) -> Sequence[Rule]:
    return (Rule("readable", column.unreadable, readable(name)), *column.rules)


def _to_check(rule: Rule) -> pa.Check:
    import pandera.polars as pa

    # `ignore_na` would let a missing value pass the rule that asks for it; `error` is what pandera reports
    return pa.Check(
        lambda data: data.lazyframe.select(rule.holds.fill_null(True)),
        name=rule.check,
        error=rule.check,
        ignore_na=False,
    )


def _as_strings(values: pl.Series) -> pl.Series:
    if values.dtype.is_nested() or values.dtype in (pl.Object, pl.Binary):
        return pl.Series(values.name, [None if v is None else str(v) for v in values.to_list()], dtype=pl.String)
    return values.cast(pl.String)


def _worst_faults(bad: pl.DataFrame, most: int = 3) -> list[tuple[str, str, int, int]]:
    """The most frequent faults: column, reason, count and first row.

    Without the value, which may be a customer's text: alerts and logs repeat this, the quarantine has the row.
    """
    counts = (
        bad.group_by("column", "reason", maintain_order=True)
        .agg(pl.len().alias("count"), pl.col("row").first())
        .sort("count", descending=True, maintain_order=True)
        .head(most)
    )
    return counts.rows()
