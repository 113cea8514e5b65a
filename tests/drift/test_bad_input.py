"""Whatever a window holds ends in a stated verdict or in a DriftInputError that names what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mlops_assets.drift.catalogue import NUMERIC
from mlops_assets.drift.columns import Column
from mlops_assets.drift.counts import count_window
from mlops_assets.drift.profile import ReferenceProfile, Window, build_profile
from mlops_assets.drift.result import DriftInputError, Limits
from mlops_assets.drift.window import WindowDrift, judge_counts, judge_window
from mlops_assets.spec import DriftSpec
from mlops_assets.verdict import Verdict
from tests.drift.test_profile import LABELS, rows

SPEC = DriftSpec(permutations=99, mmd_rows=50)
PROFILE = build_profile(rows(300), labels=LABELS, embedding_rows=50)
ROWS = 40

Judge = Callable[[ReferenceProfile, Window], WindowDrift]


def from_rows(profile: ReferenceProfile, window: Window) -> WindowDrift:
    return judge_window(profile, window, SPEC)


def from_counts(profile: ReferenceProfile, window: Window) -> WindowDrift:
    return judge_counts(profile, count_window(profile, window), SPEC)


def attempt(judge: Judge, window: Window) -> WindowDrift | DriftInputError:
    """What a window ends in; any other exception is a failed test."""
    try:
        return judge(PROFILE, window)
    except DriftInputError as error:
        return error


def told(ended: WindowDrift | DriftInputError) -> str:
    return str(ended) if isinstance(ended, DriftInputError) else ended.summary()


either_way = pytest.mark.parametrize("judge", [from_rows, from_counts])

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.decimals(),
    st.complex_numbers(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.dates(),
    st.datetimes(),
    st.timedeltas(),
    st.lists(st.integers(), max_size=2),
    st.builds(np.datetime64, st.just("NaT")),
    st.builds(np.zeros, st.integers(0, 2)),
)
TYPED = st.sampled_from(
    [
        *(np.ones(ROWS, kind) for kind in ("f2", "f4", "f8", "i1", "u8", "?", "c16", "U2", "S2", "M8[D]", "m8[s]")),
        np.zeros(ROWS, dtype=[("a", int)]),
        np.ones((ROWS, 2)),
        np.full(ROWS, np.nan),
        np.full(ROWS, np.inf),
        np.where(np.arange(ROWS) % 2, 1e308, -1e308),
        pl.Series([None] * ROWS),
        pl.Series([None] * ROWS, dtype=pl.String),
        pl.Series([Decimal("1.5")] * ROWS),
        pl.Series([1] * ROWS, dtype=pl.Int128),
        pl.Series(["a"] * ROWS, dtype=pl.Categorical),
        pl.Series([[1]] * ROWS),
        pl.Series([{"a": 1}] * ROWS),
        pl.Series([b"\xff"] * ROWS),
        *(pl.Series([v] * ROWS) for v in (date(2026, 1, 1), datetime(2026, 1, 1), time(1), timedelta(1))),
        pl.Series([object()] * ROWS, dtype=pl.Object),
    ]
)


@st.composite
def objects(draw: st.DrawFn) -> np.ndarray:
    """Values of any kinds side by side in one column."""
    column = np.empty(ROWS, dtype=object)
    few = draw(st.lists(VALUES, min_size=1, max_size=4))
    for row in range(ROWS):
        column[row] = few[row % len(few)]
    return column


COLUMNS = st.one_of(objects(), TYPED, arrays(np.float64, ROWS, elements=st.floats()))


@pytest.mark.slow
@either_way
@settings(max_examples=100)
@given(column=COLUMNS, name=st.sampled_from(["spend/90d", "country"]))
def test_any_column_gets_a_verdict_or_an_error_that_names_it(judge: Judge, column: Column, name: str) -> None:
    quiet = rows(ROWS, 1)
    window = replace(quiet, features={**quiet.features, name: column})
    ended = attempt(judge, window)
    if isinstance(ended, DriftInputError):
        assert name in str(ended)
        return
    for result in ended.groups["feature"].results:
        figures = (result.statistic, result.p_value, result.effect)
        computed = [figure is not None and np.isfinite(figure) for figure in figures]
        assert all(computed) == (result.verdict in (Verdict.PASS, Verdict.FAIL))
        assert result.verdict is not Verdict.ERROR or name in result.message


@either_way
@pytest.mark.parametrize("n", [0, 1, 29])
@settings(max_examples=5)
@given(seed=st.integers(0, 1000))
def test_nothing_and_next_to_nothing_is_never_a_pass(judge: Judge, n: int, seed: int) -> None:
    assert judge(PROFILE, rows(n, seed)).verdict is Verdict.INSUFFICIENT_DATA


@either_way
@given(kept=st.sets(st.sampled_from(["spend/90d", "country"]), max_size=1))
def test_a_missing_column_is_named(judge: Judge, kept: set[str]) -> None:
    quiet = rows(ROWS, 1)
    window = replace(quiet, features={name: quiet.features[name] for name in kept})
    missing = min({"spend/90d", "country"} - kept, key=["spend/90d", "country"].index)
    assert f"the window has no {missing}, which its reference has" in told(attempt(judge, window))


@either_way
def test_a_constant_is_quiet_where_it_was_one_and_drifts_where_it_was_none(judge: Judge) -> None:
    constant = build_profile(Window(features={"level": np.ones(200)}))
    assert judge(constant, Window(features={"level": np.ones(50)})).verdict is Verdict.PASS
    varied = build_profile(Window(features={"level": np.arange(200.0)}))
    assert judge(varied, Window(features={"level": np.full(50, 7.0)})).verdict is Verdict.FAIL


@either_way
def test_a_new_category_drifts_once_it_is_more_than_a_trace(judge: Judge) -> None:
    profile = build_profile(Window(features={"country": np.array(["DE", "FR"] * 200, dtype=object)}))

    def verdict(new: int) -> Verdict:
        window = np.array(["DE", "FR"] * ((100 - new) // 2) + ["XX"] * new, dtype=object)
        return judge(profile, Window(features={"country": window})).verdict

    assert (verdict(2), verdict(40)) == (Verdict.PASS, Verdict.FAIL)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (np.array(["1", "2"] * 50), "column spend: the reference holds numbers, the window does not"),
        (np.array([1.0, "2"] * 50, dtype=object), "column spend: the reference holds numbers, the window a str"),
        (pl.Series(["1", "2"] * 50), "column spend: the reference holds numbers, the window does not"),
    ],
)
def test_digits_in_text_are_no_numbers(window: Column, message: str) -> None:
    profile = build_profile(Window(features={"spend": np.arange(100.0)}))
    drift = judge_window(profile, Window(features={"spend": window}), SPEC)
    assert drift.verdict is Verdict.ERROR
    assert message in drift.summary()


def test_numbers_are_no_categories_but_a_column_of_nan_is_an_empty_one() -> None:
    profile = build_profile(Window(features={"country": np.array(["DE", "FR"] * 50)}))
    numbers = judge_window(profile, Window(features={"country": np.arange(50)}), SPEC)
    assert numbers.verdict is Verdict.ERROR
    assert "the reference holds categories, the window numbers (int64)" in numbers.summary()
    nothing = judge_window(profile, Window(features={"country": np.full(50, np.nan)}), SPEC)
    assert nothing.groups["feature"].drifted[0].statistic_name == "missing"


@pytest.mark.parametrize("part", [{"predicted": np.array(["query"])}, {"embeddings": np.array(1.0)}])
def test_a_window_whose_parts_differ_in_length_cannot_be_made(part: dict[str, Any]) -> None:
    with pytest.raises(DriftInputError, match="one entry per row"):
        replace(rows(ROWS), **part)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"probabilities": np.full((ROWS, 3), 7.0)}, "softmax outputs, not logits"),
        ({"probabilities": np.full((ROWS, 3), "x")}, "probabilities: need numbers"),
        ({"probabilities": np.full((ROWS, 2), 0.5)}, "probabilities: need shape"),
        ({"embeddings": np.zeros((ROWS, 5))}, "reference has 6 dimensions, window 5"),
        ({"embeddings": np.zeros((ROWS, 0))}, "embeddings: need shape"),
        ({"embeddings": np.full((ROWS, 6), "x")}, "embeddings: need numbers"),
    ],
)
@either_way
def test_outputs_of_another_model_are_an_error(judge: Judge, part: dict[str, Any], message: str) -> None:
    ended = attempt(judge, replace(rows(ROWS), **part))
    assert isinstance(ended, DriftInputError) or ended.verdict is Verdict.ERROR
    assert message in told(ended)


def test_vectors_too_large_to_compare_are_an_error_not_a_pass() -> None:
    profile = build_profile(Window(embeddings=np.random.default_rng(0).normal(size=(50, 3))))
    drift = judge_window(profile, Window(embeddings=np.full((50, 3), 1e200)), SPEC)
    assert drift.verdict is Verdict.ERROR
    assert "not finite" in drift.summary()


def test_counts_of_two_references_are_neither_added_nor_judged() -> None:
    other = build_profile(rows(300, seed=9), labels=LABELS, embedding_rows=50)
    here, there = (count_window(profile, rows(ROWS)) for profile in (PROFILE, other))
    with pytest.raises(DriftInputError, match="different references"):
        _ = here + there
    with pytest.raises(DriftInputError, match="another reference"):
        judge_counts(PROFILE, there, SPEC)


@pytest.mark.slow
@pytest.mark.parametrize("name", NUMERIC)
@settings(max_examples=40)
@given(
    a=arrays(np.float64, st.integers(0, 40), elements=st.floats(allow_nan=False)),
    b=arrays(np.float64, st.integers(0, 40), elements=st.floats(allow_nan=False)),
)
def test_a_statistic_of_any_numbers_passes_only_on_finite_figures(name: str, a: np.ndarray, b: np.ndarray) -> None:
    if name in ("wasserstein", "energy") and not np.isfinite([*a, *b]).all() and min(len(a), len(b)) > 1:
        with pytest.raises(DriftInputError, match="infinite"):
            NUMERIC[name](a, b, Limits(min_rows=2))
        return
    result = NUMERIC[name](a, b, Limits(min_rows=2))
    figures = (result.statistic, result.p_value, result.effect)
    computed = all(figure is not None and np.isfinite(figure) for figure in figures)
    assert computed == (result.verdict in (Verdict.PASS, Verdict.FAIL))
