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


counts = st.builds(Counts, arms(), arms())


@given(counts, counts, counts)
def test_counts_may_be_gathered_in_any_pieces_and_order(a: Counts, b: Counts, c: Counts) -> None:
    assert (a + b) + c == c + (b + a)


@given(counts)
def test_counts_survive_json(a: Counts) -> None:
    assert Counts.from_dict(a.to_dict()) == a


@pytest.mark.parametrize("impossible", [{"failures": 1}, {"slow": 1}, {"wrong": 1}, {"requests": -1}])
def test_impossible_counts_are_refused(impossible: dict[str, int]) -> None:
    with pytest.raises(InvalidCounts):
        ArmCounts(**impossible)
