"""The rows that the gate demands are said before a claim fails for want of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.release.comparison import judge_champion, judge_f1
from mlops_assets.release.gate import Champion, FirstModel, GateInputs
from mlops_assets.release.provable import provable
from mlops_assets.spec import GateSpec

LABELS = ("complaint", "query", "refund")
SPEC = GateSpec()


def wanting(rows: int, **more: object) -> dict[str, tuple[int, int | None]]:
    found = provable(np.arange(rows) % 3, LABELS, SPEC, **more)
    return {claim.name: (claim.rows, claim.rows_needed) for claim in found.wanting}


def test_enough_rows_want_nothing_and_say_how_good_a_model_must_be() -> None:
    found = provable(np.arange(2_000) % 3, LABELS, SPEC)
    assert found.wanting == ()
    assert found.errors_allowed == pytest.approx(0.07 * 2_000, rel=0.05)
    assert "suffice for a model with about" in found.message


def test_a_small_test_set_is_named_with_the_rows_it_needs() -> None:
    assert wanting(120) == {"f1.lower_bound": (120, 300)}
    assert "f1.lower_bound has 120 and needs 300" in provable(np.arange(120) % 3, LABELS, SPEC).message


def test_no_rows_at_all_are_insufficient() -> None:
    assert wanting(0) == {"f1.lower_bound": (0, 300)}
    assert wanting(0, newest=np.zeros(0, bool))["champion.newest"] == (0, 99)


def test_beside_a_champion_the_newest_window_and_every_label_need_rows_too() -> None:
    truth = np.repeat([0, 1, 2], [600, 397, 3])
    found = provable(truth, LABELS, SPEC, newest=np.arange(1_000) % 50 == 0)
    needed = {claim.name: claim.rows_needed for claim in found.wanting}
    assert list(needed) == ["champion.newest", "champion.label.refund"]
    assert needed["champion.newest"] == pytest.approx(99, abs=6)
    assert needed["champion.label.refund"] == pytest.approx(15, abs=6)


def test_a_worn_out_test_set_wants_more_rows_and_says_how_often_it_was_used() -> None:
    newest = np.arange(800) < 110
    assert wanting(800, newest=newest) == {}
    worn = provable(np.arange(800) % 3, LABELS, SPEC, newest=newest, earlier_uses=40)
    assert [claim.name for claim in worn.wanting] == ["champion.newest"]
    assert "served 40 decisions before" in worn.message


@pytest.mark.slow
@given(st.integers(1, 500), st.integers(0, 60), st.booleans())
@settings(max_examples=30)
def test_where_the_flawless_candidate_fails_every_candidate_does(rows: int, wrong: int, first: bool) -> None:
    truth = np.arange(rows) % 3
    predicted = np.where(np.arange(rows) < wrong, (truth + 1) % 3, truth)
    newest = None if first else np.arange(rows) % 2 == 0
    champion = FirstModel() if first else Champion("1", truth)
    inputs = GateInputs(LABELS, truth, predicted, champion, newest)
    passed = {claim.name for claim in (judge_f1(inputs, SPEC), *judge_champion(inputs, SPEC)) if claim.verdict.ok}
    assert not passed & {claim.name for claim in provable(truth, LABELS, SPEC, newest=newest).wanting}
