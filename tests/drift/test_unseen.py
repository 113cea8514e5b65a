from __future__ import annotations

from collections import Counter

import numpy as np

from mlops_assets.drift.result import Limits
from mlops_assets.drift.unseen import unseen
from mlops_assets.verdict import Verdict
from tests.drift.simulate import alarms, at_most


def test_a_share_of_rows_in_a_new_category_drifts() -> None:
    assert unseen({"a": 500, "b": 500}, {"a": 60, "new": 40}).verdict is Verdict.FAIL


def test_one_new_name_is_reported_and_quiet() -> None:
    result = unseen({"a": 500, "b": 500}, {"a": 199, "new": 1})
    assert result.verdict is Verdict.PASS
    assert result.plain_rule == {"any unseen category": True}
    assert result.message == "unseen: new (1)"


def test_an_open_ended_column_is_quiet_within_alpha() -> None:
    """Zipf's law: a tenth of every window is new, and was a tenth new in the reference too."""

    def judge(rng: np.random.Generator) -> bool:
        before, now = (Counter(map(str, rng.zipf(1.5, n))) for n in (1000, 200))
        return unseen(before, now, Limits(0.05)).verdict is Verdict.FAIL

    assert alarms(judge, 400) <= at_most(0.05, 400)
