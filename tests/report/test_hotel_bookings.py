"""A real shift: how hotel rooms are sold changed between 2015 and 2017, and the report shows it."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from mlops_assets.report.comparison import Comparison, Table, compare
from mlops_assets.report.drift_page import comparison_page
from mlops_assets.report.shapes import Bar, Mix
from mlops_assets.report.stories import Story, tell
from mlops_assets.spec import DriftSpec
from mlops_assets.verdict import Verdict
from tests.drift.real_data import real_file

pytestmark = pytest.mark.slow  # a hundred thousand rows

CALENDAR = ("ArrivalDateYear", "ArrivalDateMonth", "ArrivalDateWeekNumber", "ArrivalDateDayOfMonth")
UPDATED_AFTER_BOOKING = (
    "AssignedRoomType", "BookingChanges", "DaysInWaitingList", "RequiredCarParkingSpaces", "ADR", "Country",
)  # fmt: skip


@pytest.fixture(scope="module")
def found() -> Comparison:
    bookings = pl.read_parquet(real_file("hotel_bookings/bookings.parquet")).filter(pl.col("LeadTime") <= 150)
    day = pl.col("event_timestamp").dt.date()
    before = bookings.filter(day.is_between(date(2015, 7, 1), date(2015, 12, 31)))
    now = bookings.filter(day.is_between(date(2016, 7, 1), date(2017, 3, 31)))
    ignore = (*CALENDAR, *UPDATED_AFTER_BOOKING, "label")
    return compare(Table("2015 H2", before), Table("2016-07 to 2017-03", now), DriftSpec(alpha=0.05), ignore)


@pytest.fixture(scope="module")
def stories(found: Comparison) -> tuple[Story, ...]:
    return tell(found.profile, found.window, found.drift, found.spec)


def test_the_market_segment_has_drifted_and_is_among_what_moved_most(stories: tuple[Story, ...]) -> None:
    names = [story.column for story in stories]
    segment = stories[names.index("MarketSegment")]
    assert segment.verdict is Verdict.FAIL
    assert names.index("MarketSegment") < 4, names
    assert segment.change == "Online TA: 31 % → 57 %"


def test_its_shift_is_drawn(found: Comparison, stories: tuple[Story, ...]) -> None:
    (segment,) = (story for story in stories if story.column == "MarketSegment")
    assert isinstance(segment.shape, Mix)
    first = segment.shape.bars[0]
    assert (first.name, round(first.before, 2), round(first.now, 2)) == ("Online TA", 0.31, 0.57)
    assert isinstance(first, Bar)
    page = comparison_page(found)
    assert "MarketSegment: 2015 H2 and 2016-07 to 2017-03" in page
    assert "week by week of event_timestamp" in page


def test_what_is_no_feature_is_left_out_by_name(found: Comparison) -> None:
    assert {role.column for role in found.not_compared} == {
        "arrival_date", "event_timestamp", "label_timestamp", "booking_id",
    }  # fmt: skip
