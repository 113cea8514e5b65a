"""Leakage of four kinds: what was found is judged, what was not looked for never passes."""

from dataclasses import replace

import pytest

from mlops_assets.leaks import ColumnLeak, EntityLeak, Leakage
from mlops_assets.release.claim import Claim
from mlops_assets.release.leakage import ROW_KINDS, judge_leakage
from mlops_assets.spec import GateSpec
from mlops_assets.storage import to_json
from mlops_assets.verdict import Verdict

SPEC = GateSpec()
QUIET = EntityLeak(2_000, 1_800, share=0.001, share_high=0.01, confidence=0.95, p_value=0.4)
CLEAN = Leakage(dict.fromkeys(ROW_KINDS, 0), QUIET, (ColumnLeak(("tenure_days",), 0.03, 0.5, "7: 4% ..."),))


def claims(leakage: Leakage | None) -> dict[str, Claim]:
    return {claim.name: claim for claim in judge_leakage(leakage, SPEC)}


def entity(**changes: float) -> Claim:
    return claims(replace(CLEAN, entity=replace(QUIET, **changes)))["leakage.entity"]


def test_every_kind_is_a_claim_of_its_own() -> None:
    judged = claims(CLEAN)
    assert list(judged) == [
        "leakage.exact",
        "leakage.near",
        "leakage.time.label",
        "leakage.time.split",
        "leakage.time.feature",
        "leakage.entity",
        "leakage.column",
    ]
    assert all(claim.verdict is Verdict.PASS for claim in judged.values())


def test_one_row_is_one_too_many() -> None:
    claim = claims(replace(CLEAN, rows={**CLEAN.rows, "time.feature": 1}))["leakage.time.feature"]
    assert claim.verdict is Verdict.FAIL
    assert claim.message == "1 rows have a feature value from after their message; none may"


@pytest.mark.parametrize(
    ("missing", "name"),
    [
        (None, "leakage"),
        (replace(CLEAN, rows={}), "leakage.near"),
        (replace(CLEAN, rows={**CLEAN.rows, "exact": None}), "leakage.exact"),
        (replace(CLEAN, entity=None), "leakage.entity"),
        (replace(CLEAN, columns=None), "leakage.column"),
    ],
)
def test_what_was_not_looked_for_is_an_error(missing: Leakage | None, name: str) -> None:
    assert claims(missing)[name].verdict is Verdict.ERROR


def test_customers_that_give_their_labels_away_fail_with_the_mend() -> None:
    claim = entity(share=0.2, share_high=0.23, p_value=0.001)
    assert claim.verdict is Verdict.FAIL
    assert "hold out customers as a whole" in claim.message


def test_few_recurring_customers_pass_because_little_can_be_given_away() -> None:
    claim = entity(recurring_rows=12, share=0.006, share_high=0.006, p_value=0.001)
    assert claim.verdict is Verdict.PASS
    assert "12 of 2000 test rows have a customer with training rows" in claim.message


def test_too_few_rows_to_tell_are_insufficient_and_say_how_many_are_needed() -> None:
    claim = entity(recurring_rows=100, share=0.04, share_high=0.16, p_value=0.2)
    assert (claim.verdict, claim.rows_needed) == (Verdict.INSUFFICIENT_DATA, 400)
    assert "about 400 such rows are needed" in claim.message


def test_a_column_that_tells_the_label_is_named_with_figure_and_mend_unless_vouched_for() -> None:
    told = (ColumnLeak(("ADR",), 0.28, 1e-9, "0.0: 91% of 1550 rows are 0, 70% of all are"), *CLEAN.columns)
    claim = claims(replace(CLEAN, columns=told))["leakage.column"]
    assert (claim.verdict, claim.value) == (Verdict.FAIL, 0.28)
    assert "ADR V = 0.280 (0.0: 91% of 1550 rows are 0" in claim.message
    assert "features.known_at_event" in claim.message
    vouched = claims(replace(CLEAN, columns=told, known=("ADR",)))["leakage.column"]
    assert (vouched.verdict, vouched.value) == (Verdict.PASS, 0.03)
    assert "declared as known at event time: ADR" in vouched.message


def test_a_mirrored_pair_passes_only_when_both_are_vouched_for() -> None:
    pair = (ColumnLeak(("asked", "given"), 0.23, 1e-9, "different: ..."),)
    assert claims(replace(CLEAN, columns=pair, known=("asked",)))["leakage.column"].verdict is Verdict.FAIL
    assert claims(replace(CLEAN, columns=pair, known=("asked", "given")))["leakage.column"].verdict is Verdict.PASS


def test_an_effect_without_significance_and_significance_without_effect_are_no_suspects() -> None:
    for effect, p_value in ((0.3, 0.2), (0.05, 1e-12)):
        found = (ColumnLeak(("day",), effect, p_value, "..."),)
        assert claims(replace(CLEAN, columns=found))["leakage.column"].verdict is Verdict.PASS


def test_a_model_without_features_has_no_column_to_judge() -> None:
    claim = claims(replace(CLEAN, columns=()))["leakage.column"]
    assert claim.verdict is Verdict.PASS
    assert "none of 0 columns" in claim.message


def test_what_was_found_comes_back_from_json() -> None:
    import json

    assert Leakage.from_dict(json.loads(to_json(CLEAN.to_dict()))) == CLEAN
