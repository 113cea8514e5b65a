"""When to retrain: every rule by example, then the promises that hold whatever comes, by property."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.monitoring.retrain_policy import (
    MAX_UNSUCCESSFUL,
    Action,
    Cause,
    DataProblem,
    LedgerEntry,
    Outcome,
    Signals,
    WindowVerdict,
    debounced,
    decide,
    shift_began,
)
from mlops_assets.spec import RetrainSpec
from mlops_assets.verdict import Verdict

NOW = datetime(2026, 5, 20, 6, tzinfo=UTC)
SPEC = RetrainSpec()
QUIET = Signals("m", production_version=3, production_since=NOW - timedelta(days=10))
P, F, N, E = Verdict.PASS, Verdict.FAIL, Verdict.INSUFFICIENT_DATA, Verdict.ERROR
DRIFT_KEY = "m/v3/drift"


def windows(*verdicts: Verdict, kind: str = "traffic") -> tuple[WindowVerdict, ...]:
    """One verdict a day, the last of them today."""
    first = NOW.date() - timedelta(days=len(verdicts) - 1)
    return tuple(WindowVerdict(first + timedelta(days=i), kind, v, 3) for i, v in enumerate(verdicts))


def drifted(labels: int = 1000, days: int = 2) -> Signals:
    return replace(QUIET, windows=windows(P, *[F] * days), drifted_labels=labels, new_labels=labels)


def ago(days: float, outcome: Outcome, key: str = DRIFT_KEY, labels: int = 400) -> LedgerEntry:
    return LedgerEntry(NOW - timedelta(days=days), key, labels, outcome)


def test_a_quiet_model_is_left_alone() -> None:
    decision = decide(QUIET, [], SPEC, NOW)
    assert (decision.action, decision.cause) == (Action.NONE, None)


def test_without_a_production_model_one_is_trained() -> None:
    decision = decide(Signals("m", new_labels=SPEC.min_new_labels), [], SPEC, NOW)
    assert (decision.action, decision.cause) == (Action.RETRAIN, Cause.NO_PRODUCTION_MODEL)


def test_without_history_there_is_nothing_to_train_a_first_model_on() -> None:
    decision = decide(Signals("m"), [], SPEC, NOW)
    assert decision.action is Action.WAIT
    assert "only 0 of" in decision.reason


def test_confirmed_drift_with_labels_retrains_once() -> None:
    decision = decide(drifted(), [], SPEC, NOW)
    assert (decision.action, decision.cause, decision.key) == (Action.RETRAIN, Cause.DRIFT, DRIFT_KEY)
    assert "traffic drifted on 2026-05-19, 2026-05-20" in decision.reason
    again = decide(drifted(), [ago(0, Outcome.PENDING)], SPEC, NOW)
    assert again.action is Action.WAIT
    assert "requested at 2026-05-20 06:00" in again.reason


@pytest.mark.parametrize(
    ("verdicts", "fires"),
    [
        ((F,), False),
        ((P, F, F), True),
        ((F, P, F), True),
        ((F, F, P), False),
        ((F, P, P, F), False),
        ((F, N, F), True),
        ((F, F, E, N), True),
        ((N, N, N), False),
        ((), False),
    ],
)
def test_drift_counts_when_two_of_three_judged_windows_drifted_and_the_latest_did(
    verdicts: tuple[Verdict, ...], fires: bool
) -> None:
    assert bool(debounced(windows(*verdicts), SPEC)) is fires


@pytest.mark.parametrize(
    ("verdicts", "days_ago"),
    [
        ((P, F, F), 1),
        ((P, F, F, F, F), 3),
        ((F, P, F), 2),
        ((F, P, F, N, F, E, F), 4),
        ((F, F, F), 2),
    ],
)
def test_a_shift_began_with_the_first_drifted_day_on_end(verdicts: tuple[Verdict, ...], days_ago: int) -> None:
    decision = decide(replace(drifted(), windows=windows(*verdicts)), [], SPEC, NOW)
    assert decision.action is Action.RETRAIN
    assert shift_began(decision, SPEC) == NOW.date() - timedelta(days=days_ago)


def test_a_decision_that_is_not_about_drift_knows_no_shift() -> None:
    weekend = replace(QUIET, windows=windows(P, P, F), schedule_due=True)
    decision = decide(weekend, [], SPEC, NOW)
    assert decision.cause is Cause.SCHEDULE
    assert shift_began(decision, SPEC) is None


def test_broken_data_is_mended_whatever_else_holds() -> None:
    problem = DataProblem(date(2026, 5, 20), "missing_values", "customer_id 34 % missing")
    for signals in (drifted(), QUIET, Signals("m")):
        decision = decide(replace(signals, data_problems=(problem,)), [], SPEC, NOW)
        assert decision.action is Action.MEND_DATA
        assert "customer_id 34 % missing" in decision.reason


def test_too_few_labels_wait_and_say_how_many_are_missing() -> None:
    decision = decide(drifted(labels=120), [], SPEC, NOW)
    assert decision.action is Action.WAIT
    assert "only 120 of 400 labels" in decision.reason


def test_one_at_a_time() -> None:
    decision = decide(replace(drifted(), in_flight="canary of version 4"), [], SPEC, NOW)
    assert decision.action is Action.WAIT
    assert "canary of version 4" in decision.reason


@pytest.mark.parametrize("outcome", [Outcome.REQUESTED, Outcome.PENDING])
def test_a_retrain_that_has_not_ended_is_waited_for_whatever_it_was_asked_for(outcome: Outcome) -> None:
    decision = decide(drifted(), [ago(3, outcome, key="m/v3/quality")], SPEC, NOW)
    assert decision.action is Action.WAIT
    assert "requested at 2026-05-17 06:00 and has not ended" in decision.reason
    assert decide(drifted(), [ago(3, outcome, key="m/v2/quality")], SPEC, NOW).action is Action.RETRAIN


def test_a_retrain_that_was_overtaken_counts_for_nothing() -> None:
    assert decide(drifted(), [ago(days, Outcome.OVERTAKEN) for days in (1, 2, 3)], SPEC, NOW).action is Action.RETRAIN


def test_a_version_that_serves_again_after_its_challenger_did_is_answered_with_more_labels() -> None:
    ledger = [ago(5, Outcome.RELEASED, labels=500)]
    assert decide(drifted(labels=899), ledger, SPEC, NOW).action is Action.WAIT
    assert decide(drifted(labels=900), ledger, SPEC, NOW).action is Action.RETRAIN


def test_a_cooldown_and_a_weekly_budget_hold_and_name_their_end() -> None:
    cooling = decide(drifted(), [ago(1, Outcome.RELEASED, key="m/v2/drift")], SPEC, NOW)
    assert cooling.action is Action.WAIT
    assert "until 2026-05-21 06:00" in cooling.reason
    spent = [ago(days, Outcome.RELEASED, key=f"m/v{days}/drift") for days in (6, 5, 4)]
    over = decide(replace(drifted(), production_version=9), spent, SPEC, NOW)
    assert over.action is Action.WAIT
    assert "next at 2026-05-21 06:00" in over.reason


def test_a_challenger_that_was_not_released_is_followed_only_when_there_is_more_to_learn_from() -> None:
    ledger = [ago(3, Outcome.NOT_RELEASED, labels=500)]
    assert decide(drifted(labels=899), ledger, SPEC, NOW).action is Action.WAIT
    assert decide(drifted(labels=900), ledger, SPEC, NOW).action is Action.RETRAIN


def test_a_training_that_broke_is_repeated_without_cooldown() -> None:
    assert decide(drifted(), [ago(0.1, Outcome.FAILED)], SPEC, NOW).action is Action.RETRAIN


def test_a_training_that_broke_again_and_again_is_repeated_within_the_weekly_budget() -> None:
    broke = [ago(days, Outcome.FAILED) for days in (9, 8, 2, 1)]
    assert decide(drifted(), broke, SPEC, NOW).action is Action.RETRAIN
    over = decide(drifted(), [*broke, ago(0.1, Outcome.FAILED)], SPEC, NOW)
    assert over.action is Action.WAIT
    assert "next at 2026-05-25 06:00" in over.reason


def test_after_two_challengers_that_did_not_help_a_person_is_told() -> None:
    ledger = [ago(10, Outcome.NOT_RELEASED), ago(5, Outcome.NOT_RELEASED)]
    decision = decide(drifted(labels=9000, days=12), ledger, SPEC, NOW)
    assert (decision.action, decision.cause) == (Action.NONE, Cause.DRIFT)
    assert "a person is told" in decision.reason


@pytest.mark.parametrize(("quiet", "action"), [(2, Action.NONE), (3, Action.RETRAIN)])
def test_as_many_quiet_days_as_are_debounced_end_an_episode_and_the_next_one_is_answered(
    quiet: int, action: Action
) -> None:
    ledger = [ago(12, Outcome.NOT_RELEASED), ago(9, Outcome.NOT_RELEASED)]
    seen = windows(F, F, F, F, F, F, F, F, F, F, F, *[P] * quiet, F, F)
    assert decide(replace(drifted(labels=9000), windows=seen), ledger, SPEC, NOW).action is action


@pytest.mark.parametrize("cause", [Cause.STALE, Cause.SCHEDULE, Cause.NO_PRODUCTION_MODEL])
def test_what_is_no_episode_is_never_exhausted(cause: Cause) -> None:
    signals = replace(QUIET, new_labels=9000, schedule_due=cause is Cause.SCHEDULE)
    if cause is Cause.STALE:
        signals = replace(signals, production_since=NOW - timedelta(days=31))
    if cause is Cause.NO_PRODUCTION_MODEL:
        signals = replace(signals, production_version=None)
    key = f"m/v{signals.production_version or 0}/{cause}"
    tried = [ago(days, Outcome.NOT_RELEASED, key) for days in (25, 18, 11, 4)]
    assert decide(signals, tried, SPEC, NOW).action is Action.RETRAIN


def test_failed_days_that_lie_months_apart_are_not_one_drift() -> None:
    first, last = windows(F, F)
    apart = (replace(first, day=first.day - timedelta(days=90)), last)
    assert decide(replace(drifted(), windows=apart), [], SPEC, NOW).action is Action.NONE


def test_an_exhausted_drift_does_not_come_back_as_quality_but_the_schedule_goes_on() -> None:
    ledger = [ago(10, Outcome.NOT_RELEASED), ago(5, Outcome.NOT_RELEASED)]
    signals = replace(drifted(days=12), quality=windows(F, F, kind="quality"))
    assert decide(signals, ledger, SPEC, NOW).action is Action.NONE
    assert decide(replace(signals, schedule_due=True), ledger, SPEC, NOW).cause is Cause.SCHEDULE


def test_a_drift_that_waits_for_labels_holds_up_worse_answers_of_the_same_shift_but_neither_age_nor_schedule() -> None:
    waiting = replace(drifted(), drifted_labels=10, quality=windows(F, F, kind="quality"), new_labels=5000)
    assert decide(waiting, [], SPEC, NOW).action is Action.WAIT
    assert decide(replace(waiting, schedule_due=True), [], SPEC, NOW).cause is Cause.SCHEDULE
    old = replace(waiting, production_since=NOW - timedelta(days=31))
    assert (decide(old, [], SPEC, NOW).action, decide(old, [], SPEC, NOW).cause) == (Action.RETRAIN, Cause.STALE)


def test_realised_quality_below_its_promise_retrains() -> None:
    signals = replace(QUIET, quality=windows(F, P, F, kind="quality"), new_labels=400)
    assert decide(signals, [], SPEC, NOW).cause is Cause.QUALITY


@pytest.mark.parametrize(
    ("signals", "cause"),
    [
        (replace(QUIET, production_since=NOW - timedelta(days=31)), Cause.STALE),
        (replace(QUIET, schedule_due=True), Cause.SCHEDULE),
    ],
)
def test_age_and_schedule_retrain_only_when_there_is_something_new(signals: Signals, cause: Cause) -> None:
    idle = decide(signals, [], SPEC, NOW)
    assert (idle.action, idle.cause) == (Action.WAIT, cause)
    assert decide(replace(signals, new_labels=1), [], SPEC, NOW).action is Action.RETRAIN


verdicts = st.sampled_from(list(Verdict))
some_windows = st.lists(verdicts, max_size=8).map(lambda found: windows(*found))
a_moment = st.integers(0, 20 * 24).map(lambda hours: NOW - timedelta(hours=hours))
an_entry = st.builds(
    LedgerEntry,
    at=a_moment,
    key=st.sampled_from([DRIFT_KEY, "m/v3/quality", "m/v2/drift", "m/v3/schedule", "m/v0/no_production_model"]),
    labels=st.integers(0, 2000),
    outcome=st.sampled_from(list(Outcome)),
)
some_signals = st.builds(
    Signals,
    model=st.just("m"),
    production_version=st.sampled_from([None, 2, 3]),
    production_since=st.none() | a_moment,
    windows=some_windows,
    quality=some_windows,
    data_problems=st.just(()) | st.just((DataProblem(date(2026, 5, 20), "schema", "no column text"),)),
    new_labels=st.integers(0, 3000),
    drifted_labels=st.integers(0, 3000),
    in_flight=st.none() | st.just("canary of version 4"),
    schedule_due=st.booleans(),
)
some_ledger = st.lists(an_entry, max_size=6)


@pytest.mark.slow
@given(some_signals, some_ledger)
def test_every_decision_says_why_and_follows_from_its_inputs_alone(signals: Signals, ledger: list[LedgerEntry]) -> None:
    decision = decide(signals, ledger, SPEC, NOW)
    assert decision.reason
    assert decision == decide(signals, ledger, SPEC, NOW)
    assert (decision.cause is None) == (decision.key is None)


@pytest.mark.slow
@given(some_signals, some_ledger)
def test_a_retrain_never_breaks_a_rule(signals: Signals, ledger: list[LedgerEntry]) -> None:
    decision = decide(signals, ledger, SPEC, NOW)
    if decision.action is not Action.RETRAIN:
        return
    assert not signals.data_problems
    assert signals.in_flight is None
    began = [entry for entry in ledger if entry.outcome is not Outcome.OVERTAKEN]
    same = [entry for entry in began if entry.key == decision.key and entry.outcome is not Outcome.FAILED]
    assert len(same) < MAX_UNSUCCESSFUL
    assert sum(NOW - entry.at < timedelta(days=7) for entry in began) < SPEC.max_per_week
    open_ones = [entry.key for entry in began if entry.outcome in (Outcome.REQUESTED, Outcome.PENDING)]
    assert not any(key.startswith(f"m/v{signals.production_version or 0}/") for key in open_ones)
    if decision.cause in (Cause.DRIFT, Cause.QUALITY):
        assert decision.labels >= SPEC.min_new_labels


@pytest.mark.slow
@given(some_signals, some_ledger)
def test_once_requested_it_is_not_requested_again(signals: Signals, ledger: list[LedgerEntry]) -> None:
    decision = decide(signals, ledger, SPEC, NOW)
    if decision.action is Action.RETRAIN:
        recorded = [*ledger, LedgerEntry(NOW, str(decision.key), decision.labels)]
        assert decide(signals, recorded, SPEC, NOW).action is not Action.RETRAIN


@given(st.lists(st.tuples(verdicts, st.sampled_from([Outcome.NOT_RELEASED, Outcome.FAILED])), max_size=30))
def test_over_many_days_one_episode_costs_at_most_two_challengers_and_no_week_more_than_its_budget(
    days: list[tuple[Verdict, Outcome]],
) -> None:
    ledger: list[LedgerEntry] = []
    challengers: Counter[int] = Counter()  # by episode
    episode = quiet = 0
    for number, (verdict, outcome) in enumerate(days):
        now = NOW + timedelta(days=number)
        seen = tuple(
            WindowVerdict((NOW + timedelta(days=i)).date(), "traffic", days[i][0], 3) for i in range(number + 1)
        )
        if verdict in (P, F):
            quiet = 0 if verdict is F else quiet + 1
            episode += quiet == SPEC.windows
        signals = replace(drifted(labels=200 * (number + 1)), windows=seen, production_since=now)
        decision = decide(signals, ledger, SPEC, now)
        if decision.action is Action.RETRAIN:
            ledger.append(LedgerEntry(now, str(decision.key), decision.labels, outcome))
            challengers[episode] += outcome is Outcome.NOT_RELEASED
    assert max(challengers.values(), default=0) <= MAX_UNSUCCESSFUL
    for entry in ledger:
        week = [other for other in ledger if entry.at <= other.at < entry.at + timedelta(days=7)]
        assert len(week) <= SPEC.max_per_week
