"""The life of a rollout: what stops it, what lets it through, and that no crash changes the end."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from mlops_assets.release.rollout import (
    Approval,
    ArmCounts,
    Counts,
    InvalidCounts,
    Phase,
    RolloutState,
    abort,
    advance,
    decide,
    initialize,
    observe,
    ready,
    replay,
    seal,
    start,
    succeed,
)
from mlops_assets.release.simulate import Climb, Rates, SimulatedArm, Traffic, draw, play
from mlops_assets.spec import CanarySpec
from mlops_assets.storage import to_json
from mlops_assets.verdict import Verdict
from tests.release.test_counts import counts as any_counts

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = CanarySpec()
LADDER = CanarySpec(weights=(0.05, 0.25, 0.5), minutes=10)


def after(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def begun(policy: CanarySpec = POLICY) -> RolloutState:
    return ready(initialize(start(model="m", version=2, stable_version=1, policy=policy, now=NOON)), NOON)


def running(stable: ArmCounts | None = None, canary: ArmCounts | None = None) -> RolloutState:
    return observe(begun(), [Counts(stable or ArmCounts(), canary or ArmCounts())])


def fit() -> RolloutState:
    return running(ArmCounts(requests=9_000, failures=9), ArmCounts(requests=1_000, failures=1))


# Deciding


def test_a_canary_takes_no_traffic_before_it_is_ready() -> None:
    state = start(model="m", version=2, stable_version=1, policy=POLICY, now=NOON)
    assert (state.phase, state.weight) == (Phase.WAITING, 0.0)
    assert initialize(state).weight == 0.0
    assert (ready(state, NOON).phase, ready(state, NOON).weight) == (Phase.PROGRESSING, 0.1)


def test_a_fit_canary_is_promoted_after_the_least_time_and_not_before() -> None:
    assert decide(fit(), after(29.9)).action == "continue"
    assert decide(fit(), after(30)).action == "promote"


def test_one_that_fails_outright_is_stopped_within_twenty_requests() -> None:
    state = running()
    for request in range(1, 21):
        arm = {"canary": ArmCounts(requests=1, failures=1)} if request % 10 == 0 else {"stable": ArmCounts(requests=1)}
        state = advance(observe(state, [Counts(**arm)]), after(request / 600))
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
    assert decide(observe(state, [Counts(canary=ArmCounts(requests=1))]), after(60)).action == "promote"


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
    state = observe(promoting, [Counts(ArmCounts(judged=300, wrong=15), ArmCounts(judged=30, wrong=25))])
    stopped = advance(state, after(31))
    assert stopped.phase is Phase.FAILED
    assert stopped.reason.startswith("guard.wrong")
    assert seal(stopped)[1].startswith("aborted: guard.wrong")


def test_a_building_suspicion_holds_a_promotion() -> None:
    state = running(ArmCounts(requests=9_000, judged=600, wrong=30), ArmCounts(requests=1_000, judged=25, wrong=9))
    decision = decide(state, after(60))
    assert decision.action == "continue"
    assert "has evidence against the canary" in decision.reason


def test_a_split_that_does_not_work_does_not_promote() -> None:
    split = {"entities": 500}
    state = running(ArmCounts(requests=9_000, **split), ArmCounts(requests=9_000, **split))
    decision = decide(state, after(60))
    claim = next(claim for claim in decision.claims if claim.name == "promotion.sample_ratio")
    assert (decision.action, claim.verdict) == ("continue", Verdict.ERROR)
    assert "mend the assignment" in decision.reason


def test_customers_whom_several_replicas_counted_do_not_weigh_more_against_the_split() -> None:
    """The same split, by chance a little off, as one replica and as sixteen of them see it."""
    for times in (1, 16):
        stable = ArmCounts(requests=9_000, entities=times * 440)
        canary = ArmCounts(requests=1_000, entities=times * 70)
        state = observe(begun(), [Counts(stable, canary, times_counted=times)])
        decision = decide(state, after(60))
        claim = next(claim for claim in decision.claims if claim.name == "promotion.sample_ratio")
        assert (decision.action, claim.verdict) == ("promote", Verdict.PASS)
    assert "13.7% of 8160 customers (each counted up to 16 times)" in claim.message


def test_one_busy_customer_is_not_a_broken_split() -> None:
    state = running(ArmCounts(requests=2_000, entities=90), ArmCounts(requests=900, entities=10))
    assert decide(state, after(60)).action == "promote"


def test_it_says_how_long_a_verdict_takes_before_it_starts_and_after() -> None:
    waiting = start(model="m", version=2, stable_version=1, policy=POLICY, now=NOON, requests_per_second=1.0)
    assert decide(waiting, NOON).expected_seconds_to_verdict == pytest.approx(2_990)
    slow_traffic = running(ArmCounts(requests=900), ArmCounts(requests=100))
    assert decide(slow_traffic, after(20)).expected_seconds_to_verdict == pytest.approx(199 * 12)
    assert decide(running(), after(20)).expected_seconds_to_verdict is None


@pytest.mark.slow
@pytest.mark.parametrize("policy", [POLICY, LADDER, LADDER.model_copy(update={"shadow_minutes": 5.0})])
def test_what_is_simulated_is_what_decides(policy: CanarySpec) -> None:
    """The simulation's arrays and the state machine, side by side on the same traffic: same steps, same ends."""
    traffic, rng = Traffic(minutes=45, look_every_s=30), np.random.default_rng(7)
    rates = Rates(failures=0.005, slow=0.004, judged=0.1, wrong=0.1), Rates(failures=0.012, slow=0.005, judged=0.1)
    climb, states = Climb(6, policy), [begun(policy)] * 6
    for look in range(traffic.looks):
        arms = draw(rng, climb.weights, *rates, traffic, look)
        climb.observe(*arms)
        climb.advance(traffic.minutes_at(look))
        for run, state in enumerate(states):
            delta = [Counts()] * (len(state.steps) - 1) + [Counts(*(_of_run(arm, run) for arm in arms))]
            states[run] = advance(observe(state, delta), after(traffic.minutes_at(look)))
    assert [len(state.steps) - 1 for state in states] == climb.at.tolist()
    assert [state.phase is Phase.FAILED for state in states] == np.isfinite(climb.aborted_at).tolist()
    assert [state.phase is Phase.PROMOTING for state in states] == np.isfinite(climb.fit_at).tolist()
    assert len({state.phase for state in states}) > 1


def _of_run(arm: SimulatedArm, run: int) -> ArmCounts:
    return ArmCounts(*(int(getattr(arm, name)[run]) for name in ("requests", "failures", "slow", "judged", "wrong")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("times", "per_second", "weights", "at_most"),
    [(1.0, 10, (0.1,), 0.25), (1.5, 1, (0.1,), 0.03), (1.5, 10, (0.1,), 0.01), (1.5, 10, (0.05, 0.1), 0.01)],
)
def test_a_canary_at_or_over_its_limit_is_promoted_as_rarely_as_stated_however_often_one_looks(
    times: float, per_second: float, weights: tuple[float, ...], at_most: float
) -> None:
    """Bounds for one look, looked at until the cap, and guards that are as good as off."""
    policy = CanarySpec(weights=weights, alpha=1e-9)
    traffic = Traffic(per_second, minutes=240, look_every_s=60)
    rollouts = 500
    found = play(rollouts, Rates(), Rates(failures=0.01 * times), traffic, policy, 5)
    assert round(found.promoted * rollouts) <= binom.ppf(0.999, rollouts, at_most)


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
    assert abort(promoting, "by hand", after(31)).phase is Phase.FAILED
    assert seal(abort(promoting, "by hand", after(31)))[1] == "aborted: by hand"
    sealed, _ = seal(promoting)
    assert abort(sealed, "by hand", after(31)) == sealed


# The ladder


def climbed(state: RolloutState, minutes: float, requests: int, failures: int = 0) -> RolloutState:
    """After so many canary requests at the present step."""
    weight = state.step.weight
    stable = ArmCounts(requests=round(requests * (1 - weight) / weight))
    now = Counts(stable, ArmCounts(requests=requests, failures=failures))
    return advance(observe(state, [Counts()] * (len(state.steps) - 1) + [now]), after(minutes))


def test_a_rollout_climbs_its_ladder_step_by_step_and_is_promoted_from_the_last_one() -> None:
    state, weights = begun(LADDER), []
    for minutes in (10, 20, 30):
        weights.append(state.weight)
        state = climbed(state, minutes, 400)
    assert weights == [0.05, 0.25, 0.5]
    assert state.phase is Phase.PROMOTING
    assert [judgement.action for judgement in state.history] == ["step", "step", "promote"]
    assert state.history[0].reason == (
        "5 % of customers passed after 10.0 minutes and 400 canary requests; the canary takes 25 % of customers"
    )


def test_every_step_needs_its_own_time_and_its_own_evidence() -> None:
    second = climbed(begun(LADDER), 10, 4_000)
    assert second.weight == 0.25
    assert "0.0 of at least 10 minutes" in decide(climbed(second, 10, 400), after(10)).reason
    starved = climbed(second, 20, 298)
    assert (starved.weight, starved.phase) == (0.25, Phase.PROGRESSING)
    assert "299 requests are needed" in decide(starved, after(20)).reason


def test_the_guards_forget_nothing_from_step_to_step() -> None:
    suspicious = Counts(ArmCounts(requests=7_600, failures=8), ArmCounts(requests=400, failures=3))
    first = advance(observe(begun(LADDER), [suspicious]), after(5))
    alone = Counts(ArmCounts(requests=75), ArmCounts(requests=25, failures=3))
    second = replace(begun(LADDER), steps=(*first.steps, first.steps[0]))

    def evidence(*counts: Counts) -> float:
        state = replace(second, steps=tuple(replace(first.steps[0], counts=c) for c in counts))
        return next(c.value or 0.0 for c in decide(state, after(6)).claims if c.name == "guard.failures")

    assert evidence(suspicious, alone) > evidence(Counts(), alone)


def test_late_labels_count_at_the_step_at_which_the_answer_was_given() -> None:
    second = climbed(begun(LADDER), 10, 400)
    labelled = observe(second, [Counts(canary=ArmCounts(judged=5)), Counts()])
    assert [counts.canary.judged for counts in labelled.counts] == [5, 0]


def test_counts_of_a_step_that_has_not_begun_are_refused() -> None:
    with pytest.raises(InvalidCounts, match="step 2 came in while the rollout is at step 1"):
        observe(begun(LADDER), [Counts(), Counts()])


def test_a_ladder_that_is_not_climbed_by_the_cap_is_inconclusive() -> None:
    second = climbed(begun(LADDER), 10, 400)
    decision = decide(climbed(second, 20, 100), after(LADDER.max_minutes))
    assert decision.action == "inconclusive"
    assert "299 requests are needed" in decision.reason


def test_the_time_to_a_verdict_is_that_of_all_steps_to_come() -> None:
    waiting = start(model="m", version=2, stable_version=1, policy=LADDER, now=NOON, requests_per_second=5.0)
    assert decide(waiting, NOON).expected_seconds_to_verdict == pytest.approx(299 / 0.25 + 600 + 600)
    second = climbed(begun(LADDER), 10, 400)  # 400 in ten minutes at 5 %: 13.3 a second
    assert decide(climbed(second, 15, 1_000), after(15)).expected_seconds_to_verdict == pytest.approx(300 + 600)


# The shadow step

SHADOW = CanarySpec(shadow_minutes=5)


def test_no_customer_is_answered_by_a_canary_in_its_shadow_step() -> None:
    state = begun(SHADOW)
    assert (state.phase, state.weight, state.step.weight) == (Phase.PROGRESSING, 0.0, 0.1)
    assert state.reason == "the canary takes copies of the requests of 10 % of customers"
    copies = Counts(ArmCounts(requests=2_700), ArmCounts(requests=300), compared=300, agreed=282)
    first = advance(observe(state, [copies]), after(5))
    assert (first.phase, first.weight) == (Phase.PROGRESSING, 0.1)
    assert "94.0% of 300 answered as the stable version did" in first.reason


def test_a_canary_that_fails_on_copies_is_stopped_before_a_customer_meets_it() -> None:
    state = advance(observe(begun(SHADOW), [Counts(canary=ArmCounts(requests=5, failures=5))]), after(0.1))
    assert (state.phase, state.weight) == (Phase.FAILED, 0.0)


# Approval

MANUAL = CanarySpec(approval="manual")
CARLA = Approval(by="carla", at=after(60 * 95))


def judged_fit() -> RolloutState:
    return advance(observe(begun(MANUAL), fit().counts), after(30))


def test_with_manual_approval_a_fit_canary_waits_for_a_person() -> None:
    state = judged_fit()
    assert (state.phase, state.weight) == (Phase.WAITING_PROMOTION, 0.1)
    assert "mlops approve 2 --by NAME" in state.reason
    assert seal(state)[1].startswith("not ready: the rollout is waiting_promotion")
    assert advance(state, after(10_000)) == state  # it may take them days
    sealed, answer = seal(state, CARLA)
    assert (answer, sealed.phase, sealed.approval) == ("sealed", Phase.SEALED, CARLA)


def test_an_approval_from_before_it_was_judged_fit_is_of_another_rollout_and_does_not_count() -> None:
    state = judged_fit()
    assert state.waits_since == after(30)
    unsealed, answer = seal(state, Approval(by="carla", at=after(29)))
    assert unsealed == state
    assert answer.startswith("not ready: the approval of carla is of ")
    assert seal(state, Approval(by="carla", at=after(30)))[1] == "sealed"


def test_an_approval_promotes_nothing_that_was_not_judged_fit() -> None:
    assert seal(begun(MANUAL), CARLA)[1].startswith("not ready")
    assert seal(abort(judged_fit(), "by hand", after(31)), CARLA)[1] == "aborted: by hand"


def test_the_guards_act_while_a_version_waits_for_a_person() -> None:
    bad = observe(judged_fit(), [Counts(canary=ArmCounts(requests=30, failures=30))])
    assert advance(bad, after(60)).phase is Phase.FAILED


# The A/B test

AB = CanarySpec(weights=(0.5,), ab_hours=72, max_minutes=60)
AB_AFTER_A_STEP = CanarySpec(weights=(0.1, 0.5), minutes=10, ab_hours=72, max_minutes=60)
BOTH = ArmCounts(requests=2_000, failures=10, judged=400, wrong=20, entities=400)


def held(hours: float, stable: ArmCounts = BOTH, canary: ArmCounts = BOTH) -> RolloutState:
    """A split that was held so long."""
    return advance(observe(begun(AB), [Counts(stable, canary)]), after(60 * hours))


def test_an_ab_test_takes_its_time_however_good_the_canary_looks() -> None:
    state = held(71.9, stable=replace(BOTH, wrong=200))
    assert (state.phase, state.weight, state.history) == (Phase.PROGRESSING, 0.5, ())
    decision = decide(state, after(60 * 71.9))
    assert decision.action == "continue"
    assert decision.expected_seconds_to_verdict == pytest.approx(360)
    assert decision.comparison is not None
    assert not decision.comparison.final
    assert decision.comparison.differences[2].difference == pytest.approx(0.45)


def test_at_its_end_a_person_has_the_comparison_and_decides() -> None:
    state = held(72)
    assert state.phase is Phase.WAITING_PROMOTION
    assert "mlops approve 2 --by NAME --model m, or mlops canary abort 2 --reason WHY --model m" in state.reason
    report = state.history[-1].comparison
    assert report is not None
    assert report.final
    assert [difference.name for difference in report.differences] == ["success", "in_time", "correct"]
    assert seal(state)[1].startswith("not ready")
    assert seal(state, CARLA)[0].phase is Phase.SEALED
    assert abort(state, "no gain", after(5000)).phase is Phase.FAILED


def test_labels_that_come_after_its_end_change_nothing_of_the_report() -> None:
    state = held(72)
    later = observe(state, [Counts(canary=ArmCounts(judged=100, wrong=10))])
    assert decide(later, after(60 * 80)).comparison == state.history[-1].comparison
    assert decide(seal(later, CARLA)[0], after(60 * 90)).comparison == state.history[-1].comparison


@pytest.mark.parametrize("hours", [1.0, 73.0])
def test_harm_stops_an_ab_test_before_and_after_its_end(hours: float) -> None:
    harmed = observe(held(hours), [Counts(canary=ArmCounts(requests=400, failures=200))])
    assert advance(harmed, after(60 * hours)).phase is Phase.FAILED


@pytest.mark.parametrize(
    ("stable", "canary", "why"),
    [
        (ArmCounts(requests=10), ArmCounts(), "there was no request of the canary arm"),
        (BOTH, replace(BOTH, entities=800), "the split does not work as declared"),
    ],
    ids=["nobody came", "the split is broken"],
)
def test_arms_that_cannot_be_compared_end_it_without_a_verdict(stable: ArmCounts, canary: ArmCounts, why: str) -> None:
    ended = held(72, stable, canary)
    assert ended.phase is Phase.INCONCLUSIVE
    assert why in ended.reason


def test_the_steps_before_a_hold_are_climbed_as_ever_and_are_no_part_of_the_comparison() -> None:
    waiting = start(model="m", version=2, stable_version=1, policy=AB_AFTER_A_STEP, now=NOON, requests_per_second=100.0)
    assert decide(waiting, NOON).expected_seconds_to_verdict == pytest.approx(72 * 3600 + 600)
    state = climbed(begun(AB_AFTER_A_STEP), 10, 400)
    assert (state.weight, state.holds) == (0.5, True)
    state = advance(observe(state, [Counts(), Counts(BOTH, BOTH)]), after(10 + 72 * 60))
    report = state.history[-1].comparison
    assert report is not None
    assert report.differences[0].canary_answers == BOTH.requests


def test_a_step_before_a_hold_that_finds_no_verdict_ends_at_the_cap() -> None:
    assert advance(begun(AB_AFTER_A_STEP), after(60)).phase is Phase.INCONCLUSIVE


def test_an_ab_test_can_be_judged_again_from_its_record() -> None:
    harmed = advance(observe(held(72), [Counts(canary=ArmCounts(requests=400, failures=200))]), after(5000))
    assert [judgement.action for judgement in harmed.history] == ["await_approval", "abort"]
    assert revived(harmed) == harmed
    for judged, again in replay(revived(harmed)):
        then = (judged.action, judged.reason, judged.claims, judged.comparison)
        assert then == (again.action, again.reason, again.claims, again.comparison)


# The record


def test_every_change_of_course_can_be_judged_again_from_the_record() -> None:
    second = climbed(begun(LADDER), 10, 400)
    late = observe(second, [Counts(canary=ArmCounts(judged=9, wrong=9)), Counts()])  # labels that came later
    ended = climbed(late, 12, 40, failures=30)
    assert ended.phase is Phase.FAILED
    record = revived(ended)
    assert [judgement.at for judgement in record.history] == [after(10), after(12)]
    assert all(
        (judgement.action, judgement.reason, judgement.claims) == (again.action, again.reason, again.claims)
        for judgement, again in replay(record)
    )


def test_a_record_that_was_tampered_with_does_not_come_to_its_verdict() -> None:
    stopped = climbed(begun(), 5, 40, failures=30)
    innocent = replace(stopped.steps[0], counts=Counts(canary=ArmCounts(requests=40)))
    forged = replace(stopped, history=(replace(stopped.history[0], steps=(innocent,)),))
    ((judgement, again),) = replay(forged)
    assert (judgement.action, again.action) == ("abort", "continue")


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
            return observe(state, [delta] * len(state.steps))
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
            return abort(state, "by hand", NOON)


def revived(state: RolloutState) -> RolloutState:
    return RolloutState.from_dict(json.loads(to_json(state.to_dict())))


@pytest.mark.slow
@settings(max_examples=60)
@given(steps)
def test_every_state_survives_a_crash_and_decides_the_same_after_it(path: list[tuple[str, object]]) -> None:
    state = start(model="m", version=2, stable_version=1, policy=LADDER, now=NOON)
    for step in path:
        state = apply(state, step)
        assert revived(state) == state
        assert decide(revived(state), after(31)) == decide(state, after(31))


@pytest.mark.slow
@settings(max_examples=60)
@given(steps)
def test_every_step_but_counting_is_a_no_op_when_repeated(path: list[tuple[str, object]]) -> None:
    state = start(model="m", version=2, stable_version=1, policy=LADDER, now=NOON)
    for step in path:
        state = apply(state, step)
        if step[0] != "observe":
            assert apply(state, step) == state


@pytest.mark.slow
@settings(max_examples=60)
@given(steps, steps)
def test_nothing_changes_after_the_end(before: list[tuple[str, object]], later: list[tuple[str, object]]) -> None:
    state = start(model="m", version=2, stable_version=1, policy=LADDER, now=NOON)
    for step in before:
        state = apply(state, step)
    ended = state if state.phase.is_terminal else abort(replace(state, phase=Phase.PROGRESSING), "by hand", NOON)
    for step in later:
        assert apply(ended, step) == ended


@pytest.mark.slow
@settings(max_examples=60)
@given(steps)
def test_a_version_takes_traffic_only_while_it_is_judged_or_sealed(path: list[tuple[str, object]]) -> None:
    state = start(model="m", version=2, stable_version=1, policy=LADDER, now=NOON)
    for step in path:
        state = apply(state, step)
        serving = state.phase in (Phase.PROGRESSING, Phase.PROMOTING, Phase.SEALED)
        assert state.weight in (LADDER.weights if serving else (0.0,))
