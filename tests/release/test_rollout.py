"""The life of a rollout: what stops it, what lets it through, and that no crash changes the end."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.release.rollout import (
    ArmCounts,
    Counts,
    Phase,
    RolloutState,
    abort,
    advance,
    decide,
    initialize,
    observe,
    ready,
    seal,
    start,
    succeed,
)
from mlops_assets.release.sequential import upper_bound
from mlops_assets.release.simulate import Rates, Traffic, simulate, stops
from mlops_assets.spec import CanarySpec
from mlops_assets.storage import to_json
from mlops_assets.verdict import Verdict
from tests.release.test_counts import counts as any_counts

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = CanarySpec()


def after(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def running(stable: ArmCounts | None = None, canary: ArmCounts | None = None) -> RolloutState:
    state = ready(initialize(start(model="m", version=2, stable_version=1, policy=POLICY, now=NOON)), NOON)
    return observe(state, Counts(stable or ArmCounts(), canary or ArmCounts()))


def fit() -> RolloutState:
    return running(ArmCounts(requests=9_000, failures=9), ArmCounts(requests=1_000, failures=1))


# Deciding


def test_a_canary_takes_no_traffic_before_it_is_ready() -> None:
    state = start(model="m", version=2, stable_version=1, policy=POLICY, now=NOON)
    assert (state.phase, state.weight) == (Phase.WAITING, 0.0)
    assert initialize(state).weight == 0.0
    assert (ready(state, NOON).phase, ready(state, NOON).weight) == (Phase.PROGRESSING, POLICY.weight)


def test_a_fit_canary_is_promoted_after_the_least_time_and_not_before() -> None:
    assert decide(fit(), after(29.9)).action == "continue"
    assert decide(fit(), after(30)).action == "promote"


def test_one_that_fails_outright_is_stopped_within_twenty_requests() -> None:
    state = running()
    for request in range(1, 21):
        arm = {"canary": ArmCounts(requests=1, failures=1)} if request % 10 == 0 else {"stable": ArmCounts(requests=1)}
        state = advance(observe(state, Counts(**arm)), after(request / 600))
    assert (state.phase, state.weight) == (Phase.FAILED, 0.0)
    assert "2 of 2 requests failed in the canary" in state.reason


def test_no_traffic_never_passes_and_ends_inconclusive_with_the_reason() -> None:
    state = running(ArmCounts(requests=100))
    assert decide(state, after(60)).action == "continue"
    decision = decide(state, after(240))
    assert decision.action == "inconclusive"
    assert "0 requests" in decision.reason


def test_little_traffic_does_not_pass_because_it_is_little() -> None:
    state = running(ArmCounts(requests=2_600), ArmCounts(requests=298))
    decision = decide(state, after(60))
    assert decision.action == "continue"
    assert "299 requests are needed" in decision.reason
    assert decide(observe(state, Counts(canary=ArmCounts(requests=1))), after(60)).action == "promote"


def test_a_busy_machine_holds_a_canary_and_says_whose_fault_it_is() -> None:
    state = running(ArmCounts(requests=9_000, slow=450), ArmCounts(requests=1_000, slow=50))
    decision = decide(state, after(60))
    assert decision.action == "continue"
    assert "the machine is busy, which is no fault of the canary" in decision.reason


def test_a_canary_that_is_slow_beside_the_stable_arm_is_stopped() -> None:
    state = running(ArmCounts(requests=900, slow=9), ArmCounts(requests=100, slow=60))
    decision = decide(state, after(5))
    assert decision.action == "abort"
    assert decision.reason.startswith("guard.slow: 60 of 100 answers took over 100 ms")


def test_wrong_answers_stop_a_canary_after_it_was_found_fit() -> None:
    promoting = advance(fit(), after(30))
    state = observe(promoting, Counts(ArmCounts(judged=300, wrong=15), ArmCounts(judged=30, wrong=25)))
    stopped = advance(state, after(31))
    assert stopped.phase is Phase.FAILED
    assert stopped.reason.startswith("guard.wrong")
    assert seal(stopped)[1].startswith("aborted: guard.wrong")


def test_a_building_suspicion_holds_a_promotion() -> None:
    state = running(ArmCounts(requests=9_000, judged=600, wrong=30), ArmCounts(requests=1_000, judged=25, wrong=9))
    decision = decide(state, after(60))
    assert decision.action == "continue"
    assert "not yet enough to stop it" in decision.reason


def test_a_split_that_does_not_work_does_not_promote() -> None:
    split = {"entities": 500}
    state = running(ArmCounts(requests=9_000, **split), ArmCounts(requests=9_000, **split))
    decision = decide(state, after(60))
    claim = next(claim for claim in decision.claims if claim.name == "promotion.sample_ratio")
    assert (decision.action, claim.verdict) == ("continue", Verdict.ERROR)
    assert "mend the assignment" in decision.reason


def test_one_busy_customer_is_not_a_broken_split() -> None:
    state = running(ArmCounts(requests=2_000, entities=90), ArmCounts(requests=900, entities=10))
    assert decide(state, after(60)).action == "promote"


def test_it_says_how_long_a_verdict_takes_before_it_starts_and_after() -> None:
    waiting = start(model="m", version=2, stable_version=1, policy=POLICY, now=NOON, requests_per_second=1.0)
    assert decide(waiting, NOON).expected_seconds_to_verdict == pytest.approx(2_990)
    slow_traffic = running(ArmCounts(requests=900), ArmCounts(requests=100))
    assert decide(slow_traffic, after(20)).expected_seconds_to_verdict == pytest.approx(199 * 12)
    assert decide(running(), after(20)).expected_seconds_to_verdict is None


def test_the_guards_in_the_decision_are_those_that_were_simulated() -> None:
    traffic = Traffic(minutes=5, look_every_s=10)
    stable, canary = simulate(4, Rates(failures=0.005, slow=0.01), Rates(failures=0.03, slow=0.05), traffic, POLICY, 7)
    expected = stops(stable, canary, POLICY)
    for run in range(4):
        for look in range(0, traffic.looks, 5):
            arms = [
                ArmCounts(*(int(getattr(arm, name)[run, look]) for name in ("requests", "failures", "slow")))
                for arm in (stable, canary)
            ]
            stopped = decide(running(*arms), after(1)).action == "abort"
            assert stopped == expected[run, look]


def test_a_canary_well_over_its_limit_is_hardly_ever_promoted_however_often_one_looks() -> None:
    """Fixed-sample bounds looked at until the cap: the error that remains, on the edge of what guards catch."""
    traffic = Traffic(minutes=240, look_every_s=60)
    _, canary = simulate(1_000, Rates(), Rates(failures=0.015), traffic, POLICY, 5)
    bound = upper_bound(canary.failures[:, 29:], canary.requests[:, 29:], POLICY.confidence)
    assert (bound < 0.01).any(axis=1).mean() < 0.01


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        decide(running(), datetime(2026, 3, 1, 12))


def test_a_clock_that_jumps_back_does_not_break_the_decision() -> None:
    assert decide(fit(), after(-60)).action == "continue"


# Sealing


def test_only_a_canary_that_was_found_fit_can_be_sealed() -> None:
    assert seal(running())[1].startswith("not ready")
    sealed, answer = seal(advance(fit(), after(30)))
    assert (sealed.phase, answer) == (Phase.SEALED, "sealed")
    assert succeed(sealed).phase is Phase.SUCCEEDED


def test_abort_wins_before_the_seal_and_loses_after() -> None:
    promoting = advance(fit(), after(30))
    assert abort(promoting, "by hand").phase is Phase.FAILED
    assert seal(abort(promoting, "by hand"))[1] == "aborted: by hand"
    sealed, _ = seal(promoting)
    assert abort(sealed, "by hand") == sealed


# Properties

steps = st.lists(
    st.one_of(
        any_counts.map(lambda delta: ("observe", delta)),
        st.floats(0, 300).map(lambda minutes: ("advance", minutes)),
        st.sampled_from([("seal", None), ("succeed", None), ("abort", None), ("initialize", None), ("ready", None)]),
    ),
    max_size=12,
)


def apply(state: RolloutState, step: tuple[str, object]) -> RolloutState:
    match step:
        case ("observe", Counts() as delta):
            return observe(state, delta)
        case ("advance", float() as minutes):
            return advance(state, after(minutes))
        case ("seal", _):
            return seal(state)[0]
        case ("succeed", _):
            return succeed(state)
        case ("initialize", _):
            return initialize(state)
        case ("ready", _):
            return ready(state, NOON)
        case _:
            return abort(state, "by hand")


def revived(state: RolloutState) -> RolloutState:
    return RolloutState.from_dict(json.loads(to_json(state.to_dict())))


@settings(max_examples=60, deadline=None)
@given(steps)
def test_every_state_survives_a_crash_and_decides_the_same_after_it(path: list[tuple[str, object]]) -> None:
    state = start(model="m", version=2, stable_version=1, policy=POLICY, now=NOON)
    for step in path:
        state = apply(state, step)
        assert revived(state) == state
        assert decide(revived(state), after(31)) == decide(state, after(31))


@settings(max_examples=60, deadline=None)
@given(steps)
def test_every_step_but_counting_is_a_no_op_when_repeated(path: list[tuple[str, object]]) -> None:
    state = start(model="m", version=2, stable_version=1, policy=POLICY, now=NOON)
    for step in path:
        state = apply(state, step)
        if step[0] != "observe":
            assert apply(state, step) == state


@settings(max_examples=60, deadline=None)
@given(steps, steps)
def test_nothing_changes_after_the_end(before: list[tuple[str, object]], later: list[tuple[str, object]]) -> None:
    state = start(model="m", version=2, stable_version=1, policy=POLICY, now=NOON)
    for step in before:
        state = apply(state, step)
    ended = state if state.phase.is_terminal else abort(replace(state, phase=Phase.PROGRESSING), "by hand")
    for step in later:
        assert apply(ended, step) == ended


@settings(max_examples=60, deadline=None)
@given(steps)
def test_a_version_takes_traffic_only_while_it_is_judged_or_sealed(path: list[tuple[str, object]]) -> None:
    state = start(model="m", version=2, stable_version=1, policy=POLICY, now=NOON)
    for step in path:
        state = apply(state, step)
        serving = state.phase in (Phase.PROGRESSING, Phase.PROMOTING, Phase.SEALED)
        assert np.isclose(state.weight, POLICY.weight if serving else 0.0)
