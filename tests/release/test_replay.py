"""A decision made again from what was recorded says the same; a figure that was changed is found out."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from mlops_assets.release.evidence import document_of, inputs_from, table_of
from mlops_assets.release.gate import Champion, ChampionUnavailable, FirstModel, GateInputs, Waiver, judge
from mlops_assets.release.replay import Doubt, Finding, State, compare_gate, replay_rollout
from mlops_assets.release.rollout import ArmCounts, Counts, RolloutState, abort, advance, observe, ready, seal, start
from mlops_assets.spec import CanarySpec
from mlops_assets.storage import to_json
from tests.release.test_gate import SPEC, candidate

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def stored(inputs: GateInputs) -> GateInputs:
    """The inputs as they come back from JSON and a table."""
    rows = [f"m{row}" for row in range(len(inputs.truth))]
    return inputs_from(json.loads(to_json(document_of(inputs))), table_of(inputs, rows))


def states(findings: tuple[Finding, ...]) -> dict[str, State]:
    return {finding.name: finding.state for finding in findings}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"champion": FirstModel()},
        {"champion": ChampionUnavailable("model.onnx is damaged")},
        {"champion": None, "newest": None, "probabilities": None, "latencies_ms": None, "leakage": None},
        {"earlier_uses": 7, "seed": 3, "waiver": Waiver("drill", "ops")},
        {"customers": np.arange(2_000) // 3},
        {"champion": Champion("4", candidate().predicted, "d1g3st", "2026-03-01T00:00:00+00:00")},
    ],
)
def test_stored_inputs_give_the_same_decision(changes: Mapping[str, Any]) -> None:
    inputs = replace(candidate(), **changes)
    again = judge(stored(inputs), SPEC)
    assert again == judge(inputs, SPEC)
    recorded = json.loads(to_json(judge(inputs, SPEC).to_dict()))
    assert State.worst([finding.state for finding in compare_gate(recorded, again, {})]) is State.FOLLOWS


def test_a_table_of_other_labels_is_refused_by_name() -> None:
    table = table_of(candidate(), [f"m{row}" for row in range(2_000)])
    with pytest.raises(ValueError, match="spam is none of the labels"):
        inputs_from(document_of(candidate()), table.with_columns(label=pl.lit("spam")))


def test_a_figure_a_verdict_a_claim_and_a_release_that_were_changed_are_found() -> None:
    recorded = json.loads(to_json(judge(candidate(accuracy=0.9), SPEC).to_dict()))
    again = judge(candidate(accuracy=0.9), SPEC)
    by_name = {claim["name"]: claim for claim in recorded["claims"]}
    by_name["f1.lower_bound"]["value"] = 0.95
    by_name["latency.percentile"]["verdict"] = "fail"
    recorded["claims"].remove(by_name["leakage.near"])
    recorded["released"] = True
    found = states(compare_gate(recorded, again, {}))
    changed = {name for name, state in found.items() if state is State.DIFFERS}
    assert changed == {"gate.f1.lower_bound", "gate.latency.percentile", "gate.leakage.near", "gate.verdict"}


def test_claims_on_an_input_in_doubt_say_why_and_the_verdict_is_open() -> None:
    decision = judge(candidate(), SPEC)
    found = compare_gate(decision.to_dict(), decision, {"leakage": Doubt(State.MISSING, "the snapshot is gone")})
    by_name = {finding.name: finding for finding in found}
    assert by_name["gate.leakage.entity"].message == "the snapshot is gone"
    assert by_name["gate.leakage.entity"].state is by_name["gate.verdict"].state is State.MISSING
    assert by_name["gate.f1.lower_bound"].state is State.FOLLOWS


# Rollouts


def progressing() -> RolloutState:
    return ready(start(model="m", version=2, stable_version=1, policy=CanarySpec(), now=NOON), NOON)


def counted(failures: int = 0, requests: int = 600) -> Counts:
    stable = ArmCounts(requests=9 * requests, entities=9 * requests)
    return Counts(stable, ArmCounts(requests=requests, failures=failures, entities=requests))


def evidence(state: RolloutState) -> dict[str, Any]:
    return json.loads(to_json({"rollout": state.to_dict(), "canary_processes": 1}))


def promoted() -> RolloutState:
    state = advance(observe(progressing(), [counted()]), NOON + timedelta(minutes=31))
    assert state.phase.value == "promoting"
    return state


@pytest.mark.parametrize(
    ("state", "action"),
    [
        (promoted(), "promote"),
        (seal(promoted())[0], "promote"),
        (advance(observe(progressing(), [counted(failures=60)]), NOON + timedelta(minutes=5)), "abort"),
        (advance(observe(progressing(), [counted(requests=20)]), NOON + timedelta(minutes=241)), "inconclusive"),
    ],
)
def test_a_recorded_rollout_follows_from_its_counts_policy_and_time(state: RolloutState, action: str) -> None:
    found = replay_rollout(evidence(state))
    assert set(states(found).values()) == {State.FOLLOWS}
    assert found[-1].again == action


def test_counts_that_went_on_until_the_seal_change_no_judgement() -> None:
    later = observe(promoted(), [counted(failures=1, requests=200)])
    found = {finding.name: finding for finding in replay_rollout(evidence(seal(later)[0]))}
    assert {finding.state for finding in found.values()} == {State.FOLLOWS}
    assert "600 requests" in found["rollout.step1.promotion.success"].message


def test_counts_that_do_not_bear_the_verdict_are_found() -> None:
    document = evidence(promoted())
    document["rollout"]["history"][0]["steps"][0]["counts"]["canary"]["failures"] = 60
    found = states(replay_rollout(document))
    assert found["rollout.step1.guard.failures"] is State.DIFFERS
    assert found["rollout.step1.verdict"] is State.DIFFERS


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            evidence(abort(progressing(), "stopped by hand: drill", NOON)),
            "not judged on counts: stopped by hand: drill",
        ),
        ({"outcome": "first version", "reason": "no stable arm"}, "no counts to judge: no stable arm"),
    ],
)
def test_a_rollout_that_was_not_judged_on_counts_says_so(document: dict[str, Any], message: str) -> None:
    (finding,) = replay_rollout(document)
    assert (finding.state, finding.message) == (State.FOLLOWS, message)


def test_nothing_is_no_proof() -> None:
    assert State.worst([]) is State.MISSING
    assert State.worst([State.MISSING, State.DIFFERS, State.FOLLOWS]) is State.DIFFERS


def test_a_comparison_of_an_ab_test_that_was_changed_is_found() -> None:
    policy = CanarySpec(weights=(0.5,), ab_hours=1)
    both = ArmCounts(requests=500, failures=1, judged=100, wrong=4, entities=100)
    state = ready(start(model="m", version=2, stable_version=1, policy=policy, now=NOON), NOON)
    ended = advance(observe(state, [Counts(both, both)]), NOON + timedelta(hours=1))
    document = json.loads(to_json({"rollout": ended.to_dict()}))
    assert State.worst([finding.state for finding in replay_rollout(document)]) is State.FOLLOWS
    document["rollout"]["history"][0]["comparison"]["differences"][2]["lower"] = 0.001
    found = states(replay_rollout(document))
    assert {name for name, state in found.items() if state is State.DIFFERS} == {"rollout.step1.ab.correct"}
