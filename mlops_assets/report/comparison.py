"""Compares any two tables: finds what can be compared, and has the drift engine judge it.

Knows tables and their columns. The statistics and their error rate are `drift.window`'s; how the outcome is
shown is left to the other files of this package.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import polars as pl

from mlops_assets.drift.profile import ReferenceProfile, Window, build_profile
from mlops_assets.drift.result import DriftResult, broken
from mlops_assets.drift.window import GroupDrift, WindowDrift, judge_window
from mlops_assets.report.roles import Kind, Role, find_roles, is_text, is_time
from mlops_assets.spec import DriftSpec
from mlops_assets.verdict import Verdict, worst

SCHEMA = "schema"
_FORMS = {Kind.TIME: ("times", is_time, "ISO times"), Kind.TEXT: ("text", is_text, "text")}


class CannotCompare(ValueError):
    """Two tables have nothing that could be compared; the message says why and how to mend it."""


@dataclass(frozen=True)
class Table:
    """A table and what to call it."""

    name: str
    frame: pl.DataFrame


@dataclass(frozen=True)
class Comparison:
    """Two tables and what the engine says of them.

    `drift` has the group ``schema`` where a column is in one table only, or holds times or free text in the reference
    only; those have no role.
    """

    reference: Table
    current: Table
    roles: tuple[Role, ...]
    profile: ReferenceProfile
    window: Window
    drift: WindowDrift
    spec: DriftSpec

    @property
    def not_compared(self) -> tuple[Role, ...]:
        """Columns that are named with a reason, free text among them."""
        return tuple(role for role in self.roles if role.reason)


def compare(reference: Table, current: Table, spec: DriftSpec, ignore: Collection[str] = ()) -> Comparison:
    """Judge `current` against `reference`, column by column.

    Args:
        spec: the error rate (`alpha`) of the whole comparison, and the limits.
        ignore: columns to leave out of both tables.

    Raises:
        CannotCompare: the reference has no rows, a column to ignore is in neither table, or no column is left.

    >>> before = Table("may", pl.DataFrame({"spend": [5, 9] * 50, "shop": ["a", "b"] * 50}))
    >>> now = Table("june", pl.DataFrame({"spend": [8, 9] * 50, "shop": ["b", "a"] * 50}))
    >>> found = compare(before, now, DriftSpec())
    >>> found.drift.verdict.value, [result.column for result in found.drift.groups["feature"].drifted]
    ('fail', ['spend', 'spend'])
    """
    if reference.frame.is_empty():
        raise CannotCompare(f"{reference.name} has no rows; give a reference of at least {spec.min_rows}")
    before, now = _without(reference, current, ignore)
    before = _typed_as(now, before)
    shared = find_roles(before.frame, now.frame)
    changed = _changed(before, now, shared)
    roles = tuple(role for role in shared if role.column not in [fault.column for fault in changed])
    window = to_window(now.frame, roles)
    if not window.features:
        raise CannotCompare(_nothing(before, now, shared))
    profile = build_profile(to_window(before.frame, roles))
    drift = _with_schema(judge_window(profile, window, spec), (*_one_sided(before, now), *changed))
    return Comparison(before, now, roles, profile, window, drift, spec)


def to_window(frame: pl.DataFrame, roles: Sequence[Role]) -> Window:
    """What is compared of a table: numbers, categories, and the lengths of free text."""
    features: dict[str, pl.Series] = {}
    for role in roles:
        values = frame[role.column]
        if role.kind is Kind.TEXT:
            features[f"length of {role.column}"] = values.cast(pl.String).str.len_chars()
        elif role.kind in (Kind.NUMBER, Kind.CATEGORY):
            features[role.column] = values
    return Window(features=features)


def _without(reference: Table, current: Table, ignore: Collection[str]) -> tuple[Table, Table]:
    known = {*reference.frame.columns, *current.frame.columns}
    if strangers := sorted(set(ignore) - known):
        raise CannotCompare(
            f"neither table has a column {', '.join(strangers)} to ignore; there is: {_some(sorted(known), 40)}"
        )
    for table in (reference, current):
        if set(table.frame.columns) <= set(ignore):
            raise CannotCompare(f"all columns of {table.name} are left out; give fewer of them to --ignore")
    return tuple(replace(t, frame=t.frame.drop(ignore, strict=False)) for t in (reference, current))  # type: ignore[return-value]


def _typed_as(other: Table, table: Table) -> Table:
    """A table whose columns without any value, which have no type to speak of, have that of the other table."""
    empty = [name for name in table.frame.columns if name in other.frame.columns and not table.frame[name].count()]
    return replace(table, frame=table.frame.cast({name: other.frame[name].dtype for name in empty}))


def _one_sided(reference: Table, current: Table) -> tuple[DriftResult, ...]:
    """An error for each column that one table lacks."""
    n, m = reference.frame.height, current.frame.height
    return tuple(
        broken(
            SCHEMA, name, n, m, f"is in {table.name} only; add it to {other.name}, or leave it out with --ignore {name}"
        )
        for table, other in ((reference, current), (current, reference))
        for name in table.frame.columns
        if name not in other.frame.columns
    )


def _changed(reference: Table, current: Table, roles: Sequence[Role]) -> tuple[DriftResult, ...]:
    """An error for each column that holds times or free text in the reference and something else now."""
    n, m = reference.frame.height, current.frame.height
    faults = []
    for role in (role for role in roles if role.kind in _FORMS):
        values, (what, fits, form) = current.frame[role.column], _FORMS[role.kind]
        if values.count() and not fits(values.dtype):
            message = f"holds {what} in {reference.name} and {values.dtype} in {current.name}; write {form}"
            faults.append(broken(SCHEMA, role.column, n, m, message))
    return tuple(faults)


def _with_schema(drift: WindowDrift, faults: tuple[DriftResult, ...]) -> WindowDrift:
    if not faults:
        return drift
    schema = GroupDrift(SCHEMA, worst(result.verdict for result in faults), 0.0, faults)
    return replace(drift, verdict=worst((drift.verdict, Verdict.ERROR)), groups={SCHEMA: schema, **drift.groups})


def _nothing(reference: Table, current: Table, roles: Sequence[Role]) -> str:
    if not roles:
        return (
            f"{reference.name} and {current.name} have no column in common, so there is nothing to compare. "
            f"{reference.name} has: {_some(reference.frame.columns)}; "
            f"{current.name} has: {_some(current.frame.columns)}. Are they two exports of the same table?"
        )
    reasons = "; ".join(f"{role.column}: {role.reason}" for role in roles)
    return f"{reference.name} and {current.name} share no column that can be compared ({reasons})"


def _some(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most]) or 'no columns'}{more}"
