"""Counts add up, and impossible ones are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.release.counts import ArmCounts, Counts, InvalidCounts


@st.composite
def arms(draw: st.DrawFn) -> ArmCounts:
    requests, judged = draw(st.integers(0, 500)), draw(st.integers(0, 500))
    events = [draw(st.integers(0, requests)) for _ in range(3)]
    return ArmCounts(requests, events[0], events[1], judged, draw(st.integers(0, judged)), events[2])


@st.composite
def both_arms(draw: st.DrawFn) -> Counts:
    compared = draw(st.integers(0, 500))
    return Counts(
        draw(arms()),
        draw(arms()),
        compared,
        draw(st.integers(0, compared)),
        draw(st.integers(0, 500)),
        times_counted=draw(st.integers(0, 9)),
    )


counts = both_arms()


@pytest.mark.slow
@given(counts, counts, counts)
def test_counts_may_be_gathered_in_any_pieces_and_order(a: Counts, b: Counts, c: Counts) -> None:
    assert (a + b) + c == c + (b + a)


@pytest.mark.parametrize("impossible", [{"failures": 1}, {"slow": 1}, {"wrong": 1}, {"requests": -1}])
def test_impossible_counts_are_refused(impossible: dict[str, int]) -> None:
    with pytest.raises(InvalidCounts):
        ArmCounts(**impossible)


@pytest.mark.parametrize("impossible", [{"agreed": 1}, {"compared": -1}, {"dropped": -1}, {"times_counted": -1}])
def test_impossible_comparisons_are_refused(impossible: dict[str, int]) -> None:
    with pytest.raises(InvalidCounts):
        Counts(**impossible)
