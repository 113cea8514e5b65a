"""A policy over a history: what it would have done beside what happened, and what cannot be known."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from mlops_assets.monitoring.retrain_policy import WindowVerdict
from mlops_assets.release.gate import judge
from mlops_assets.replay.engine import replay
from mlops_assets.replay.events import CANNOT, Event, Kind, Replay, totals
from mlops_assets.replay.history import Gated, History
from mlops_assets.replay.report import as_document
from mlops_assets.spec import ModelSpec
from mlops_assets.storage import to_json
from mlops_assets.verdict import Verdict
from tests.release.test_gate import candidate
from tests.replay.factories import OWN, at_work, day, history, midnight, policy, released
from tests.replay.logged import EXCHANGE, Canary, record

QUIET, SHIFTED, SLIGHT = 0.0, 1.5, 0.6


def run(recorded: History, wanted: ModelSpec = OWN, first: int = 0) -> Replay:
    return replay(recorded, wanted, day(first), max(recorded.drift))


def told(found: Replay, kind: Kind) -> dict[date, str]:
    """What the policy would have said on each day, of one kind."""
    return {one.day: event.what for one in found.days for event in one.replayed if event.kind is kind}


def why(found: Replay, on: date, kind: Kind) -> str:
    events: tuple[Event, ...] = next(one.replayed for one in found.days if one.day == on)
    return next(event.why for event in events if event.kind is kind)


def test_the_own_policy_does_what_was_done() -> None:
    recorded = history([QUIET, QUIET, SHIFTED, SHIFTED, SHIFTED, QUIET, QUIET], retrained=5)
    found = run(recorded)
    assert [one.differences for one in found.days] == [()] * 7
    assert told(found, Kind.RETRAIN) == {day(3): "drift"}
    assert told(found, Kind.RELEASE) == {day(4): "version 2"}
    assert found.changes == {}
    happened, would = (totals([getattr(d, side) for d in found.days]) for side in ("happened", "replayed"))
    assert happened == would
    assert (would.retrains, would.releases, would.unknown) == (1, 1, 0)


def test_the_same_inputs_give_the_same_bytes() -> None:
    wanted = policy(drift={"ks_effect": 0.4}, retrain={"windows": 4})
    documents = {to_json(as_document(run(history([QUIET, SHIFTED, SHIFTED, SLIGHT]), wanted))) for _ in range(3)}
    assert len(documents) == 1


def test_other_limits_judge_a_days_drift_anew_and_what_follows_from_it() -> None:
    recorded = history([QUIET, SLIGHT, SLIGHT, SLIGHT])
    assert told(run(recorded), Kind.DRIFT)[day(2)] == "fail"
    blind = run(recorded, policy(drift={"ks_effect": 0.9, "psi": 9.0}))
    assert set(told(blind, Kind.DRIFT).values()) == {"pass"}
    assert told(blind, Kind.RETRAIN) == {}
    assert told(blind, Kind.DECISION)[day(3)] == "none"
    assert blind.changes["drift.psi"] == (0.2, 9.0)


def test_a_retrain_that_it_never_asked_for_leaves_the_rest_unknown() -> None:
    recorded = history([QUIET, SHIFTED, SHIFTED, SHIFTED, QUIET, QUIET], retrained=4)
    cautious = run(recorded, policy(retrain={"min_new_labels": 5000}))
    assert told(cautious, Kind.RETRAIN) == {}
    assert told(cautious, Kind.RELEASE) == {}
    assert told(cautious, Kind.DRIFT)[day(3)] == "fail"
    for unknown in (day(4), day(5)):
        assert (told(cautious, Kind.DRIFT)[unknown], told(cautious, Kind.DECISION)[unknown]) == (CANNOT, CANNOT)
    assert why(cautious, day(5), Kind.DRIFT) == (
        "version 2 was in production, and under this policy it is not: it had not asked for the retrain that made it"
    )


def test_a_retrain_that_it_asks_for_sooner_counts_as_pending_until_that_on_record_stands_in() -> None:
    recorded = history([QUIET, SHIFTED, SHIFTED, SHIFTED, QUIET, QUIET], retrained=5)
    eager = run(recorded, policy(retrain={"drifted": 1, "windows": 1, "min_new_labels": 100}))
    assert told(eager, Kind.RETRAIN) == {day(1): "drift"}
    assert told(eager, Kind.DECISION)[day(2)] == "wait: drift"
    assert told(eager, Kind.RELEASE) == {day(4): "version 2"}
    assert told(eager, Kind.DRIFT)[day(5)] == "pass"
    assert any(
        "2026-03-03 00:00 for m/v1/drift never happened: it counts as pending until that of 2026-03-04" in said
        for said in eager.assumptions
    )


def test_a_retrain_that_nothing_on_record_answers_stays_pending() -> None:
    recorded = history([QUIET, SHIFTED, QUIET, QUIET])
    eager = run(recorded, policy(retrain={"drifted": 1, "windows": 1, "min_new_labels": 100}))
    assert told(eager, Kind.RETRAIN) == {day(1): "drift"}
    assert "the retrain of 2026-03-03 00:00 for m/v1/drift never happened: it counts as pending" in eager.assumptions


def test_labels_of_days_that_only_this_policy_calls_drifted_are_counted() -> None:
    recorded = history([QUIET, 0.4, 0.4, 0.4])
    assert told(run(recorded), Kind.RETRAIN) == {}
    keen = run(recorded, policy(drift={"ks_effect": 0.0, "psi": 0.01, "alpha": 0.6}))
    days = [on for on, verdict in told(keen, Kind.DRIFT).items() if verdict == "fail"]
    assert len(days) >= 2
    assert told(keen, Kind.RETRAIN) == {days[1]: "drift"}  # 100 labels a day, 200 are needed


def test_what_is_under_way_only_because_of_a_retrain_on_record_is_not_so_here() -> None:
    recorded = at_work(history([QUIET, SHIFTED, SHIFTED, SHIFTED]), "the training run 1a2b3c4d", from_day=3)
    assert told(run(recorded), Kind.DECISION)[day(3)] == "wait: drift"
    patient = run(recorded, policy(retrain={"drifted": 3}))
    assert told(patient, Kind.RETRAIN) == {day(3): "drift"}


def test_what_came_before_the_first_day_is_as_it_was() -> None:
    recorded = history([QUIET, SHIFTED, SHIFTED, SHIFTED, QUIET, QUIET], retrained=4)
    late = run(recorded, policy(retrain={"min_new_labels": 5000}), first=4)
    assert told(late, Kind.DRIFT) == {day(4): "pass", day(5): "pass"}
    assert CANNOT not in told(late, Kind.DECISION).values()


def test_drift_that_was_never_computed_is_unknown_and_so_is_what_rests_on_it() -> None:
    found = run(history([QUIET, QUIET]), policy(drift={"reference_days": 30.0}))
    assert set(told(found, Kind.DRIFT).values()) == {CANNOT}
    assert set(told(found, Kind.DECISION).values()) == {CANNOT}
    assert why(found, day(1), Kind.DRIFT) == "no reference of 30 days and 100 rows or more was made"


def test_a_day_of_a_version_that_no_gate_judged_stays_without_a_verdict_under_any_policy() -> None:
    lived = history([QUIET, QUIET])
    unjudged = {on: {**document, "promised_f1": None} for on, document in lived.quality.items()}
    windows = (WindowVerdict(day(0), "quality", Verdict.INSUFFICIENT_DATA, 1),)
    decisions = tuple(replace(one, signals=replace(one.signals, quality=windows)) for one in lived.decisions)
    found = run(replace(lived, quality=unjudged, decisions=decisions), policy(monitors={"max_f1_drop": 0.2}))
    assert told(found, Kind.DECISION) == {day(0): "none", day(1): "none"}


# gates and canaries


def gated(version: int, retrain: str, on: int, accuracy: float = 0.96) -> Gated:
    inputs = candidate(accuracy=accuracy)
    decision = judge(inputs, OWN.gate)
    at = midnight(day(on))
    about = (decision.verdict, decision.released, decision.summary)
    return Gated(f"digest{version}", at, at, retrain, OWN.gate, inputs, *about)


def test_a_gate_that_holds_what_was_released_leaves_the_days_after_it_unknown() -> None:
    lived = history([QUIET, SHIFTED, SHIFTED, SHIFTED, QUIET, QUIET], retrained=4)
    recorded = replace(lived, gates=(gated(2, "r2", 3),))
    assert told(run(recorded), Kind.GATE) == {day(3): "version 2 passed"}
    strict = run(recorded, policy(gate={"min_f1": 0.99}))
    assert told(strict, Kind.GATE) == {day(3): "version 2 held"}
    assert told(strict, Kind.RELEASE) == {}
    assert "it is not: the gate holds it: fail: f1.lower_bound" in why(strict, day(5), Kind.DRIFT)


def test_a_candidate_that_was_held_and_would_pass_goes_into_a_canary_that_never_ran() -> None:
    lived = history([QUIET, QUIET, QUIET])
    recorded = replace(lived, gates=(gated(9, "", 1, accuracy=0.9),))
    assert told(run(recorded), Kind.GATE) == {day(1): "candidate digest9 held"}
    lenient = run(recorded, policy(gate={"min_f1": 0.85}))
    assert told(lenient, Kind.GATE) == {day(1): "candidate digest9 passed"}
    assert told(lenient, Kind.ROLLOUT) == {day(1): CANNOT}
    assert why(lenient, day(1), Kind.ROLLOUT) == "candidate digest9 would have gone into a canary, which never ran"


@pytest.mark.slow
def test_a_canary_that_another_policy_promotes_is_in_production_from_then_on_and_never_answered(tmp_path: Path) -> None:
    ran = record(tmp_path, OWN.canary.scaled(0.5), Canary(slow=0.009))
    lived = history([QUIET, QUIET, QUIET])
    versions = (*lived.versions, replace(released(2, "", None), rollout=ran.state))
    about = {"requests": ran.requests, "feedback": ran.feedback, "exchange_seconds": EXCHANGE, "time_scale": 0.5}
    recorded = replace(lived, versions=versions, **about)
    own = run(recorded)
    assert told(own, Kind.ROLLOUT) == {day(0): "version 2 inconclusive"}
    assert [one.differences for one in own.days] == [()] * 3
    lenient = run(recorded, policy(canary={"max_p99_ms": 2000.0}))
    assert told(lenient, Kind.ROLLOUT) == {day(0): "version 2 promoted"}
    assert told(lenient, Kind.RELEASE) == {day(0): "version 2"}
    assert set(told(lenient, Kind.DECISION).values()) == {CANNOT}
    assert why(lenient, day(1), Kind.DRIFT) == ("under this policy version 2 is in production, which never answered")
