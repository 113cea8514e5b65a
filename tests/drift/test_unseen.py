from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mlops_assets.drift.result import Limits
from mlops_assets.drift.unseen import chance, unseen
from mlops_assets.verdict import Verdict
from tests.drift.simulate import alarms, at_most


def test_a_share_of_rows_in_a_new_category_drifts() -> None:
    assert unseen({"a": 500, "b": 500}, {"a": 60, "new": 40}).verdict is Verdict.FAIL


def test_one_new_name_is_reported_and_quiet() -> None:
    result = unseen({"a": 500, "b": 500}, {"a": 199, "new": 1})
    assert result.verdict is Verdict.PASS
    assert result.plain_rule == {"any unseen category": True}
    assert result.message == "unseen: new (1)"


@pytest.mark.slow
def test_an_open_ended_column_is_quiet_within_alpha() -> None:
    """Zipf's law: a tenth of every window is new, and was a tenth new in the reference too."""

    def judge(rng: np.random.Generator) -> bool:
        before, now = (Counter(map(str, rng.zipf(1.5, n))) for n in (1000, 200))
        return unseen(before, now, Limits(0.05)).verdict is Verdict.FAIL

    assert alarms(judge, 400) <= at_most(0.05, 400)


@pytest.mark.slow
@pytest.mark.parametrize(("categories", "before", "now"), [(200, 400, 20_000), (200, 300, 1000), (50, 100, 3000)])
def test_a_reference_too_small_to_have_met_all_categories_is_no_drift(categories: int, before: int, now: int) -> None:
    """Each one that it missed has many rows in the window: taken for independent, they alarmed seven times as often."""

    def judge(rng: np.random.Generator) -> bool:
        mixes = (rng.multinomial(rows, np.full(categories, 1 / categories)) for rows in (before, now))
        reference, window = ({f"shop {n}": int(count) for n, count in enumerate(mix) if count} for mix in mixes)
        return unseen(reference, window, Limits(0.01)).verdict is Verdict.FAIL

    assert alarms(judge, 400) <= at_most(0.01, 400)


def test_the_chance_is_no_smaller_than_that_of_rows_dealt_anew() -> None:
    rng = np.random.default_rng(3)
    rows = np.repeat(np.arange(40), rng.integers(1, 6, size=40))
    dealt = [rng.permutation(rows) for _ in range(4000)]
    fresh = np.array([np.isin(deal[60:], deal[:60], invert=True).sum() for deal in dealt])
    before, now = (Counter(map(str, part)) for part in (dealt[0][:60], dealt[0][60:]))
    for least in np.quantile(fresh, [0.5, 0.9, 0.99]).astype(int):
        assert chance(before, now, int(least)) >= (fresh >= least).mean()
