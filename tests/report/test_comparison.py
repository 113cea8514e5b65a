"""Any two tables, compared: what drifted, what could not be compared, and what is left alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from mlops_assets.report.comparison import CannotCompare, Comparison, Table, compare
from mlops_assets.report.drift_page import comparison_page
from mlops_assets.report.stories import Story, strength, tell
from mlops_assets.spec import DriftSpec
from mlops_assets.verdict import Verdict
from tests.drift.simulate import alarms, at_most
from tests.report.factories import shop

SPEC = DriftSpec(alpha=0.05)


def stories(found: Comparison) -> dict[str, Story]:
    return {story.column: story for story in tell(found.profile, found.window, found.drift, found.spec)}


def test_two_quiet_months_are_quiet() -> None:
    found = compare(shop("may", 0), shop("june", 1), SPEC)
    assert found.drift.verdict is Verdict.PASS
    assert list(found.window.features) == ["spend", "lines", "country", "length of note"]


def test_columns_come_in_the_order_of_what_matters_most() -> None:
    june = shop("june", 1, country=["DE"] * 400, lines=["three"] * 400, spend=np.full(400, 40.0))
    told = stories(compare(shop("may", 0), june, SPEC))
    assert [(name, story.verdict.value) for name, story in told.items()] == [
        ("lines", "error"),
        ("country", "fail"),
        ("spend", "fail"),
        ("length of note", "pass"),
    ]
    assert told["country"].change == "DE: 8.5 % → 100 %"
    assert told["lines"].change.startswith("column lines: the reference holds numbers, the window does not")


def test_a_drifted_column_says_what_changed_in_it() -> None:
    gone = [None if i % 2 else 20.0 for i in range(400)]
    june = shop("june", 1, spend=gone, lines=np.random.default_rng(1).poisson(9, 400), country=["FR"] * 400)
    told = stories(compare(shop("may", 0), june, SPEC))
    assert told["spend"].missing == (0.0, 0.5)
    assert told["lines"].change == "median: 3 → 9"
    assert told["country"].change == "FR: 0 % → 100 %; 100 % in categories never seen before"


def test_a_column_of_one_table_alone_is_an_error_that_says_how_to_mend_it() -> None:
    may, june = shop("may", 0, label=[0, 1] * 200), shop("june", 1, channel=["app"] * 400)
    found = compare(may, june, SPEC)
    assert found.drift.verdict is Verdict.ERROR
    assert {r.column: r.message for r in found.drift.groups["schema"].results} == {
        "label": "is in may only; add it to june, or leave it out with --ignore label",
        "channel": "is in june only; add it to may, or leave it out with --ignore channel",
    }
    assert compare(may, june, SPEC, ignore=["label", "channel"]).drift.verdict is Verdict.PASS


def test_text_where_the_reference_has_times_is_an_error() -> None:
    found = compare(shop("may", 0), shop("june", 1, event_timestamp=["soon"] * 400), SPEC)
    (fault,) = found.drift.groups["schema"].results
    assert fault.message == "holds times in may and String in june; write ISO times"
    assert found.drift.verdict is Verdict.ERROR


@pytest.mark.parametrize("values", [[[1, 2]] * 400, [b"\xff"] * 400, range(400)])
def test_anything_else_where_the_reference_has_free_text_is_an_error(values: Sequence[object]) -> None:
    june = shop("june", 1, note=pl.Series(values))
    found = compare(shop("may", 0), june, SPEC)
    (fault,) = found.drift.groups["schema"].results
    assert fault.message == f"holds text in may and {june.frame['note'].dtype} in june; write text"
    assert found.drift.verdict is Verdict.ERROR
    assert "note" in comparison_page(found)


def test_numbers_in_a_column_that_was_empty_are_no_longer_missing() -> None:
    may = shop("may", 0, spend=pl.Series([None] * 400, dtype=pl.String))
    story = stories(compare(may, shop("june", 1), SPEC))["spend"]
    assert (story.verdict, story.change) == (Verdict.FAIL, "missing: 100 % → 0 %")


def test_too_few_rows_are_insufficient_and_an_empty_window_too() -> None:
    for n in (0, 5):
        june = Table("june", shop("june", 1).frame.head(n))
        assert compare(shop("may", 0), june, SPEC).drift.verdict is Verdict.INSUFFICIENT_DATA


def test_tables_with_nothing_to_compare_are_refused_with_the_reason() -> None:
    ids = pl.DataFrame({"id": [f"x{i}" for i in range(100)]})
    with pytest.raises(CannotCompare, match=r"no column in common.*may has: order_id, spend"):
        compare(shop("may", 0), Table("ids", ids), SPEC)
    with pytest.raises(CannotCompare, match=r"share no column that can be compared \(id: an identifier"):
        compare(Table("a", ids), Table("b", ids), SPEC)
    with pytest.raises(CannotCompare, match="may has no rows"):
        compare(Table("may", shop("may", 0).frame.head(0)), shop("june", 1), SPEC)
    with pytest.raises(CannotCompare, match="neither table has a column typo to ignore"):
        compare(shop("may", 0), shop("june", 1), SPEC, ignore=["typo"])
    with pytest.raises(CannotCompare, match="all columns of may are left out; give fewer of them to --ignore"):
        compare(shop("may", 0), shop("june", 1), SPEC, ignore=shop("may", 0).frame.columns)


def test_effects_of_different_units_are_told_in_multiples_of_their_limits() -> None:
    assert strength("missing", 0.3, SPEC) == 2.0
    assert strength("psi", 1.8, SPEC) == pytest.approx(3.0)  # PSI grows with the square of a shift
    assert strength("mmd", -0.001, SPEC) == 0.0  # the unbiased estimate can be negative
    assert strength("a statistic of tomorrow", 0.3, SPEC) is None


@pytest.mark.slow
def test_quiet_tables_alarm_no_more_often_than_the_threshold_says() -> None:
    """Null: both months come from one shop. Effect floors off, so that the error rate alone is tested."""
    bare = DriftSpec(alpha=0.05, ks_effect=0, share_effect=0, psi=1e-9)

    def judge(rng: np.random.Generator) -> bool:
        seed = int(rng.integers(1 << 20))
        found = compare(shop("may", 2 * seed % 5000, 150), shop("june", 2 * seed % 5000 + 1, 100), bare)
        return found.drift.verdict is Verdict.FAIL

    assert alarms(judge, 120) <= at_most(0.05, 120)
