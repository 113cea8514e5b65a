"""A day judged again from what is kept of it says what the day itself would have said under those limits."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlops_assets.drift.again import as_document, judge_again
from mlops_assets.drift.profile import ReferenceProfile, Window, build_profile
from mlops_assets.drift.window import judge_window
from mlops_assets.spec import DriftSpec
from mlops_assets.storage import to_json
from mlops_assets.verdict import Verdict
from tests.drift.test_profile import LABELS, rows

OWN = DriftSpec(permutations=199, mmd_rows=100, alpha=0.03)


@pytest.fixture(scope="module")
def profile() -> ReferenceProfile:
    return build_profile(rows(600), labels=LABELS)


def kept(profile: ReferenceProfile, window: Window, spec: DriftSpec = OWN) -> dict[str, Any]:
    """The document of a day, as it comes back from its file."""
    drift = judge_window(profile, window, spec)
    groups = {
        name: {"verdict": group.verdict, "alpha": group.alpha, "results": group.results}
        for name, group in drift.groups.items()
    }
    document: dict[str, Any] = json.loads(to_json({"verdict": drift.verdict, "rows": drift.rows, "groups": groups}))
    return document


def moved(by: float, n: int = 120, seed: int = 1) -> Window:
    """A day on which one feature and the embeddings moved."""
    day = rows(n, seed)
    spend = {**day.features, "spend/90d": np.asarray(day.features["spend/90d"]) + by}
    return replace(day, features=spend, embeddings=np.asarray(day.embeddings) + by / 4)


POLICIES = {
    "the model's own": {},
    "a larger error rate": {"alpha": 0.3},
    "a smaller one, within the permutations": {"alpha": 0.02},
    "lower floors": {"ks_effect": 0.0, "psi": 0.01, "share_effect": 0.0, "mmd_effect": 0.0},
    "higher floors": {"ks_effect": 0.6, "psi": 2.0, "mmd_effect": 0.5},
    "more rows wanted": {"min_rows": 121},
}


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_it_says_what_the_day_itself_would_have_said(profile: ReferenceProfile, policy: str) -> None:
    spec = OWN.model_copy(update=POLICIES[policy])
    for by in (0.0, 0.1, 0.2, 0.3, 0.5, 1.0):
        again = judge_again(kept(profile, moved(by)), OWN, spec)
        said = judge_window(profile, moved(by), spec)
        assert again.verdict is said.verdict
        for name, group in said.groups.items():
            assert [r.verdict for r in again.groups[name].results] == [r.verdict for r in group.results]
            assert again.groups[name].verdict is group.verdict


def test_a_document_made_again_is_one_like_the_first(profile: ReferenceProfile) -> None:
    document = kept(profile, moved(0.5))
    again = json.loads(to_json(as_document(document, judge_again(document, OWN, OWN))))
    assert again["verdict"] == document["verdict"]
    assert judge_again(again, OWN, OWN).verdict == document["verdict"]


UNKNOWN = {
    "statistics that had too few rows": ({"min_rows": 10}, "mmd of * was never computed: 20 rows were too few"),
    "another reference": ({"reference_days": 30.0}, "no reference of 30 days and 100 rows or more was made"),
    "other rows for MMD": ({"mmd_rows": 300}, "MMD of 300 rows with 199 permutations was never computed"),
    "more permutations": ({"permutations": 999}, "MMD of 100 rows with 999 permutations was never computed"),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_was_never_computed_is_said_and_not_guessed(profile: ReferenceProfile, what: str) -> None:
    changes, reason = UNKNOWN[what]
    window = moved(0.0, n=20 if "min_rows" in changes else 120)
    own = OWN.model_copy(update={"min_rows": 30})
    again = judge_again(kept(profile, window, own), own, own.model_copy(update=changes))
    assert again.verdict is None
    assert any(said.startswith(reason) for said in again.unknown)


def test_an_error_rate_that_takes_more_permutations_is_unknown_only_where_they_would_decide(
    profile: ReferenceProfile,
) -> None:
    strict = OWN.model_copy(update={"alpha": 0.003})
    day = rows(120, 1)
    apart = replace(day, embeddings=np.asarray(day.embeddings) + 0.5)
    assert judge_again(kept(profile, apart), OWN, strict).verdict is None
    assert judge_again(kept(profile, day), OWN, strict).verdict is Verdict.PASS  # its effect is below the floor


def test_a_drift_of_one_group_is_one_of_the_day_whatever_the_others_say(profile: ReferenceProfile) -> None:
    again = judge_again(kept(profile, moved(2.0)), OWN, OWN.model_copy(update={"mmd_rows": 300}))
    assert again.verdict is Verdict.FAIL
    assert set(again.groups) == {"feature", "prediction"}


def test_a_day_without_predictions_is_insufficient_under_any_policy() -> None:
    quiet = {"verdict": "insufficient_data", "alpha": 0.0, "results": []}
    again = judge_again({"groups": {"feature": quiet}}, OWN, OWN.model_copy(update={"reference_days": 30.0}))
    assert again.verdict is Verdict.INSUFFICIENT_DATA
