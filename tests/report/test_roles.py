"""What a column is compared as, and what is said of one that is not."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from mlops_assets.report.roles import Kind, find_roles, infer_times, infer_types
from tests.report.factories import shop


def roles(before: pl.DataFrame, now: pl.DataFrame) -> dict[str, Kind]:
    return {role.column: role.kind for role in find_roles(before, now)}


def test_each_column_of_a_table_gets_its_role_by_type_and_content() -> None:
    assert roles(shop("may", 0).frame, shop("june", 1).frame) == {
        "order_id": Kind.LEFT_OUT,
        "spend": Kind.NUMBER,
        "lines": Kind.NUMBER,
        "country": Kind.CATEGORY,
        "note": Kind.TEXT,
        "event_timestamp": Kind.TIME,
    }


def test_what_is_not_compared_as_it_is_has_a_reason() -> None:
    reasons = {role.column: role.reason for role in find_roles(shop("may", 0).frame, shop("june", 1).frame)}
    assert reasons["order_id"].startswith("an identifier: 400 of 400 values are distinct")
    assert "its length in characters is compared" in reasons["note"]
    assert "drawn over and not compared" in reasons["event_timestamp"]
    assert reasons["spend"] == reasons["country"] == ""


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (range(100), Kind.LEFT_OUT),  # a row counter
        ([7, 3] * 50, Kind.NUMBER),
        ([float(n) for n in range(100)], Kind.NUMBER),  # distinct, but no identifier
        ([True, False] * 50, Kind.NUMBER),
        ([["a"], ["b"]] * 50, Kind.LEFT_OUT),
        ([None] * 100, Kind.LEFT_OUT),
        ([date(2026, 3, 1)] * 100, Kind.TIME),
        ([f"shop {n % 20}" for n in range(100)], Kind.CATEGORY),
    ],
)
def test_a_column_by_its_values(values: list[object], kind: Kind) -> None:
    frame = pl.DataFrame({"c": list(values)})
    assert roles(frame, frame) == {"c": kind}


def test_a_shuffled_identifier_is_told_by_its_size() -> None:
    ids = pl.DataFrame({"id": range(5000)}).sample(fraction=1, shuffle=True, seed=1)
    assert roles(ids, ids) == {"id": Kind.LEFT_OUT}
    assert roles(ids.head(200), ids.tail(200)) == {"id": Kind.NUMBER}  # 200 amounts may well all differ


def test_few_values_are_never_taken_for_an_identifier() -> None:
    few = pl.DataFrame({"c": ["a", "b", "c"]})
    assert roles(few, few) == {"c": Kind.CATEGORY}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (["1", " 2", "", None], [1, 2, None, None]),
        (["1", "2.5", "NA"], [1.0, 2.5, None]),
        (["true", "False", "NA"], [True, False, None]),
        (["1", "much"], ["1", "much"]),  # one misfit: it stays text, and the comparison will say so
        (["NA", "b"], ["NA", "b"]),  # a category may be called NA
        (["2026-03-01", "2026-03-02"], [datetime(2026, 3, day, tzinfo=UTC) for day in (1, 2)]),
        (["2026-03-01 12:00", "2026-03-01 13:30"], [datetime(2026, 3, 1, *t, tzinfo=UTC) for t in ((12,), (13, 30))]),
        (["2026-03-01T12:00:00+02:00"], [datetime(2026, 3, 1, 10, tzinfo=UTC)]),
        (["", None], ["", None]),
    ],
)
def test_the_text_of_a_csv_file_is_read_for_what_all_of_it_means(text: list[str | None], values: list[object]) -> None:
    assert infer_types(pl.DataFrame({"c": text}, schema={"c": pl.String}))["c"].to_list() == values


def test_where_numbers_have_a_type_only_times_are_read_from_text() -> None:
    frame = infer_times(pl.DataFrame({"size": ["38", "40"], "at": ["2026-03-01T00:00:00Z"] * 2}))
    assert frame.dtypes == [pl.String, pl.Datetime("us", "UTC")]
