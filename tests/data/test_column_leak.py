"""A column that tells the label is found, by itself or beside the one it mirrors; an independent one is let alone."""

import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from mlops_assets.data.column_leak import column_leaks
from mlops_assets.leaks import ColumnLeak, Leakage
from mlops_assets.release.leakage import ALPHA, ROW_KINDS, judge_leakage
from mlops_assets.spec import GateSpec
from mlops_assets.verdict import Verdict
from tests.data.factories import REAL_DATA

HOTELS = REAL_DATA.parent / "hotel_bookings" / "bookings.parquet"
# what the README of the data set says was updated after the booking
LEAKING = {"AssignedRoomType", "BookingChanges", "DaysInWaitingList", "RequiredCarParkingSpaces", "ADR", "Country"}
NOT_FEATURES = {"label", "booking_id", "event_timestamp", "label_timestamp", "arrival_date"}


def strongest(frame: pl.DataFrame, *columns: str) -> ColumnLeak:
    return column_leaks(frame, "label", columns)[0]


def labels(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(["query", "refund", "other"], rows, p=[0.6, 0.3, 0.1])


def test_a_copy_of_the_label_is_found_whatever_it_is_called() -> None:
    label = labels(1_000)
    frame = pl.DataFrame({"label": label, "code": np.unique(label, return_inverse=True)[1], "noise": np.arange(1_000)})
    found = strongest(frame, "noise", "code")
    assert (found.columns, found.effect) == (("code",), pytest.approx(1.0, abs=0.001))


def test_a_value_that_is_missing_only_for_one_label_is_found() -> None:
    label = labels(1_000)
    closed = [None if one == "refund" else "desk" for one in label]
    found = strongest(pl.DataFrame({"label": label, "closed_by": closed}), "closed_by")
    assert found.effect > 0.99
    assert found.telling.startswith("missing: 100% of ")
    assert "are refund, 3" in found.telling


def test_a_tell_in_the_middle_of_a_scale_is_found() -> None:
    label, rng = labels(2_000), np.random.default_rng(1)
    amount = np.where(label == "refund", rng.normal(50, 5, 2_000), rng.normal(50, 50, 2_000))
    assert strongest(pl.DataFrame({"label": label, "amount": amount}), "amount").effect > 0.3


def test_what_only_the_difference_to_a_mirrored_column_tells_is_found() -> None:
    label, rng = labels(2_000), np.random.default_rng(2)
    asked = rng.choice(list("ABCD"), 2_000)
    given = np.where((label == "query") & (rng.random(2_000) < 0.3), rng.choice(list("ABCD"), 2_000), asked)
    found = strongest(pl.DataFrame({"label": label, "asked": asked, "given": given}), "asked", "given")
    assert found.name == "asked against given"
    assert found.effect > 0.2


def test_columns_that_agree_by_chance_are_no_mirror() -> None:
    rng = np.random.default_rng(3)
    frame = pl.DataFrame({"label": labels(2_000), "babies": rng.random(2_000) < 0.05, "pets": rng.random(2_000) < 0.05})
    assert [leak.columns for leak in column_leaks(frame, "label", ["babies", "pets"])] == [("babies",), ("pets",)]


@pytest.mark.slow
def test_independent_columns_are_suspected_no_more_often_than_it_says() -> None:
    """H0 for all six columns, the chi-squared test alone (without the effect floor): 1 % of tables at most."""
    runs, suspected = 80, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        frame = pl.DataFrame(
            {
                "label": labels(1_500, seed + 1_000),
                "normal": rng.normal(size=1_500),
                "count": rng.poisson(2, 1_500),
                "flag": rng.random(1_500) < 0.05,
                "letter": rng.choice(list("abcdefgh"), 1_500),
                "many": rng.integers(0, 40, 1_500).astype(str),
                "sparse": np.where(rng.random(1_500) < 0.9, np.nan, rng.normal(size=1_500)),
            }
        )
        suspected += any(leak.p_value <= ALPHA for leak in column_leaks(frame, "label", frame.columns[1:]))
    assert suspected <= binom.ppf(0.999, runs, ALPHA)


@given(
    st.lists(st.sampled_from([None, float("nan"), float("inf"), -1.0, 0.0, 1e300]), min_size=1, max_size=80),
    st.integers(1, 3),
)
@settings(max_examples=60)
def test_any_column_ends_in_a_figure(values: list[float | None], kinds: int) -> None:
    label = [str(row % kinds) for row in range(len(values))]
    frame = pl.DataFrame({"label": label, "value": values}, schema_overrides={"value": pl.Float64})
    found = strongest(frame, "value")
    assert 0 <= found.effect <= 1
    assert 0 <= found.p_value <= 1


@pytest.mark.slow
@pytest.mark.parametrize("rows", [12_000, pytest.param(None, marks=pytest.mark.slow)])
def test_on_real_bookings_the_gate_names_the_columns_that_leak(rows: int | None) -> None:
    if not HOTELS.exists():
        pytest.skip(f"the real data is not at {HOTELS}")
    booked = pl.col("event_timestamp").dt.date()
    in_scope = booked.is_between(pl.date(2015, 7, 1), pl.date(2017, 3, 31)) & (pl.col("LeadTime") <= 150)
    frame = pl.read_parquet(HOTELS).filter(in_scope)
    if rows:
        frame = frame.sample(rows, seed=1)
    columns = [name for name in frame.columns if name not in NOT_FEATURES]
    started = time.process_time()
    found = column_leaks(frame, "label", columns)
    assert time.process_time() - started < (1.5 if rows else 10)

    honest = tuple(set(columns) - LEAKING)
    claim = judge_leakage(Leakage(dict.fromkeys(ROW_KINDS, 0), None, found, honest), GateSpec())[-1]
    assert claim.verdict is Verdict.FAIL
    assert all(name in claim.message.split("; declared as known")[0] for name in LEAKING), claim.message
    assert "ReservedRoomType against AssignedRoomType V = 0.2" in claim.message
    mended = judge_leakage(Leakage(dict.fromkeys(ROW_KINDS, 0), None, found, tuple(columns)), GateSpec())[-1]
    assert mended.verdict is Verdict.PASS
    weak = {"Babies", "Adults", "Children", "Meal", "ArrivalDateDayOfMonth", "StaysInWeekendNights"}
    assert all(leak.effect < GateSpec().max_column_effect for leak in found if set(leak.columns) <= weak)
