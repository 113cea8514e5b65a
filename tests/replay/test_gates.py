"""A gate decision under another policy rests on the recorded inputs, and says where these do not suffice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from mlops_assets.release.gate import GateInputs, Waiver, judge
from mlops_assets.replay.gates import judge_again
from mlops_assets.replay.history import Gated
from mlops_assets.spec import GateSpec
from tests.release.test_gate import candidate

NOW = datetime(2026, 5, 1, tzinfo=UTC)
OWN = GateSpec()


def gated(inputs: GateInputs, spec: GateSpec = OWN) -> Gated:
    decision = judge(inputs, spec)
    return Gated("d1", NOW, NOW, "", spec, inputs, decision.verdict, decision.released, decision.summary)


@pytest.mark.parametrize("accuracy", [0.96, 0.8])
def test_the_own_policy_says_what_was_said(accuracy: float) -> None:
    recorded = gated(candidate(accuracy=accuracy))
    again = judge_again(recorded, OWN)
    assert (again.verdict, again.released, again.reason) == (recorded.verdict, recorded.released, recorded.summary)


def test_another_limit_gives_another_outcome() -> None:
    assert judge_again(gated(candidate()), GateSpec(min_f1=0.99)).released is False
    assert judge_again(gated(candidate(accuracy=0.9)), GateSpec(min_f1=0.85)).released is True


def test_a_waiver_releases_under_any_policy() -> None:
    waived = gated(replace(candidate(), waiver=Waiver("it is the only one", "ann")))
    assert judge_again(waived, GateSpec(min_f1=0.99)).released is True


def test_what_was_not_asked_of_a_model_that_was_too_slow_is_missing_and_not_guessed() -> None:
    few = replace(candidate(rows=100), latencies_ms=np.full(61, 80.0))
    unknown = judge_again(gated(few), GateSpec(max_latency_ms=500))
    assert (unknown.verdict, unknown.released) == (None, None)
    assert unknown.reason.startswith(
        "too slow for the limit of the day, it was measured on 61 calls and asked only 100 test rows: f1.lower_bound"
    )
    assert judge_again(gated(few), OWN).released is False


def test_what_fails_on_few_rows_fails() -> None:
    bad = replace(candidate(rows=400, accuracy=0.3), latencies_ms=np.full(61, 80.0))
    assert judge_again(gated(bad), GateSpec(max_latency_ms=500)).released is False
