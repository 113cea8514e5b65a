"""Whatever two tables hold, the answer is a stated verdict with a report, or one clear refusal."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.report.comparison import CannotCompare, Table, compare
from mlops_assets.report.drift_page import comparison_page
from mlops_assets.report.terminal import as_document
from mlops_assets.spec import DriftSpec
from mlops_assets.storage import to_json
from mlops_assets.verdict import Verdict
from tests.report.reader import Reader, assert_self_contained

TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
COLUMNS = (
    st.floats(),
    st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf]),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2),
    st.booleans(),
    st.text(max_size=5),
    st.sampled_from(["a", "b", "<i>"]),
    TIMES,
    st.none(),
    st.lists(st.integers(0, 3), max_size=2),
)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """A table of up to 60 rows; a column may be of another type in the other table, or be missing there."""
    rows = draw(st.sampled_from([0, 1, 5, 30, 60]))
    names = draw(st.lists(st.sampled_from(["a", "b", "<c>", "event_timestamp"]), min_size=1, max_size=4, unique=True))
    columns = {}
    for name in names:
        values = draw(st.sampled_from(COLUMNS))
        some = draw(st.lists(values | st.none(), min_size=1, max_size=12))
        columns[name] = [some[n % len(some)] for n in range(rows)]
    return Table(draw(st.sampled_from(["x", "<y>"])), pl.DataFrame(columns, strict=False))


@pytest.mark.slow
@settings(max_examples=30)
@given(tables(), tables())
def test_two_tables_of_anything_end_in_a_verdict_or_a_refusal(before: Table, now: Table) -> None:
    try:
        found = compare(before, now, DriftSpec(alpha=0.05))
    except CannotCompare:
        return
    assert to_json(as_document(found))
    assert_self_contained(Reader(comparison_page(found)))


@pytest.mark.parametrize("values", [range(60), [n / 7 for n in range(60)]])
def test_the_largest_float_in_place_of_a_missing_value_is_drawn_and_judged(values: Sequence[float]) -> None:
    largest = sys.float_info.max
    before = Table("may", pl.DataFrame({"spend": [*values, *[-largest] * 9]}, strict=False))
    now = Table("june", pl.DataFrame({"spend": [*values, *[largest] * 30]}, strict=False))
    found = compare(before, now, DriftSpec(alpha=0.05))
    assert found.drift.verdict is Verdict.FAIL
    assert_self_contained(Reader(comparison_page(found)))
