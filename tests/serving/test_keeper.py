"""The guard's memory of one rollout: counted once, durable, and never started twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.release.ab import GROUPS
from mlops_assets.release.assignment import group_of
from mlops_assets.release.rollout import Approval, ArmCounts, Counts, Phase, RolloutState
from mlops_assets.serving import stray_labels
from mlops_assets.serving.keeper import ABSENT_SECONDS, MAX_BIRTHS, Keeper, StateNotWritten
from mlops_assets.serving.routing import CanaryRoute, Label, Labels, Tally, VersionRef
from mlops_assets.serving.stray_labels import StrayLabels
from mlops_assets.serving.tally import RolloutTally
from mlops_assets.spec import CanarySpec, ModelSpec
from tests.serving.full_disk import no_room_in
from tests.serving.held import HeldSplit

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ONE, TWO, THREE = (VersionRef(n, f"/models/{n}", f"digest{n}") for n in (1, 2, 3))
SPEC = ModelSpec(name="m", canary=CanarySpec(weights=(0.3,), minutes=1, max_minutes=10, min_success=0.9))


def keeper_in(folder: Path) -> Keeper:
    return Keeper(SPEC, folder, time_scale=1.0)


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    """With version 2 as a canary that takes traffic."""
    keeper = keeper_in(tmp_path)
    assert keeper.follow(ONE, TWO, 2, NOON) == 2
    keeper.canary_ready(TWO, "first life", NOON)
    assert keeper.phase() == "progressing"
    return keeper


def counts(requests: int, failures: int = 0) -> Counts:
    return Counts(
        ArmCounts(requests=requests * 3, entities=requests * 3),
        ArmCounts(requests=requests, failures=failures, entities=requests),
    )


def report(keeper: Keeper, replica: str, *said: Counts, at: datetime = NOON) -> None:
    keeper.absorb(replica, Tally(keeper.describe(at)["rollout_id"], said), at)


def taken(keeper: Keeper) -> int:
    return int(keeper.describe(NOON)["counts"]["canary"]["requests"])


def test_a_canary_takes_traffic_only_once_its_process_holds_it(tmp_path: Path) -> None:
    keeper = keeper_in(tmp_path)
    keeper.follow(ONE, TWO, 2, NOON)
    assert keeper.route().canary is None
    assert keeper.canary_ref() == TWO
    keeper.canary_ready(TWO, "life", NOON)
    canary = keeper.route().canary
    assert canary is not None
    assert (canary.ref, canary.weight) == (TWO, 0.3)


def test_no_rollout_without_a_stable_version_or_of_the_stable_version(tmp_path: Path) -> None:
    keeper = keeper_in(tmp_path)
    assert keeper.follow(None, TWO, 2, NOON) is None
    assert keeper.follow(TWO, TWO, 2, NOON) is None
    assert keeper.phase() == "none"


def test_a_report_that_comes_twice_counts_once(keeper: Keeper) -> None:
    report(keeper, "a", counts(10))
    report(keeper, "a", counts(10))
    report(keeper, "a", counts(15))
    report(keeper, "b", counts(5))
    assert taken(keeper) == 20


def test_a_restart_forgets_nothing(keeper: Keeper, tmp_path: Path) -> None:
    report(keeper, "a", counts(10))
    again = keeper_in(tmp_path)
    assert again.describe(NOON)["counts"] == keeper.describe(NOON)["counts"]
    report(again, "a", counts(10))
    report(again, "a", counts(12))
    assert taken(again) == 12
    assert again.route().stable == ONE


@pytest.mark.slow
@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.booleans(), st.booleans()), max_size=12))
def test_lost_and_repeated_exchanges_and_restarts_never_change_the_total(
    tmp_path_factory: pytest.TempPathFactory, story: list[tuple[str, int, bool, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("keeper")
    keeper = keeper_in(folder)
    keeper.follow(ONE, TWO, 2, NOON)
    keeper.canary_ready(TWO, "life", NOON)
    sent = {"a": 0, "b": 0}
    for replica, more, lost, restart in story:
        sent[replica] += more
        if not lost:
            report(keeper, replica, counts(sent[replica]))
        if restart:
            keeper = keeper_in(folder)
    for replica, total in sent.items():
        report(keeper, replica, counts(total))
    assert taken(keeper) == sum(sent.values())


def test_a_failing_canary_loses_its_traffic_at_once_and_the_registry_hears_of_it(
    keeper: Keeper, tmp_path: Path
) -> None:
    report(keeper, "a", counts(20, failures=20))
    assert keeper.phase() == "failed"
    assert keeper.route().canary is None
    outcome = keeper_in(tmp_path).outcome()  # a crash before the registry was told changes nothing
    assert outcome is not None
    assert (outcome.version, outcome.phase) == (2, Phase.FAILED)
    evidence = outcome.evidence
    assert (evidence["outcome"], evidence["started_at"], evidence["decided_at"]) == ("failed", NOON, NOON)
    assert evidence["reason"].startswith("guard.")
    assert evidence["rollout"]["salt"] == evidence["rollout"]["rollout_id"]
    assert evidence["rollout"]["steps"][0]["counts"]["canary"]["failures"] == 20
    assert RolloutState.from_dict(evidence["rollout"]).policy == SPEC.canary


def test_the_next_rollout_waits_until_the_registry_knows_the_last_ones_end(keeper: Keeper) -> None:
    report(keeper, "a", counts(20, failures=20))
    assert keeper.follow(ONE, THREE, 3, NOON) is None
    outcome = keeper.outcome()
    assert outcome is not None
    keeper.closed(outcome)
    assert keeper.outcome() is None
    assert keeper.follow(ONE, THREE, 3, NOON) == 3


def test_a_fit_canary_is_sealed_then_succeeds_when_the_alias_has_moved(keeper: Keeper) -> None:
    assert str(keeper.seal(2, None, NOON)).startswith("not ready")
    report(keeper, "a", counts(600), at=NOON + timedelta(minutes=2))
    assert keeper.phase() == "promoting"
    assert keeper.seal(3, None, NOON) is None
    assert keeper.seal(2, None, NOON) == keeper.seal(2, None, NOON) == "sealed"
    assert "too late" in str(keeper.abort(2, "nervous", NOON))
    keeper.follow(TWO, None, 2, NOON)
    assert keeper.phase() == "succeeded"
    assert keeper.route().stable == TWO


def test_a_rollout_ends_when_somebody_moves_the_aliases(tmp_path: Path) -> None:
    for aliases, why in (((THREE, TWO, 2), "production moved"), ((ONE, THREE, 3), "alias canary was moved")):
        keeper = keeper_in(tmp_path / why)
        keeper.follow(ONE, TWO, 2, NOON)
        keeper.canary_ready(TWO, "life", NOON)
        keeper.follow(*aliases, NOON)
        assert keeper.phase() == "failed"
        assert why in keeper.describe(NOON)["reason"]


@pytest.fixture
def sealed(keeper: Keeper) -> Keeper:
    """With version 2 sealed: the orchestrator is to move the alias production."""
    report(keeper, "a", counts(600), at=NOON + timedelta(minutes=2))
    assert keeper.seal(2, None, NOON + timedelta(minutes=2)) == "sealed"
    return keeper


@pytest.mark.parametrize(
    ("stable", "canary", "holder", "why"),
    [
        (THREE, TWO, 2, "production moved from version 1 to 3 meanwhile"),
        (ONE, None, None, "the alias canary was moved to None"),
        (ONE, THREE, 3, "the alias canary was moved to 3"),
    ],
    ids=["another version in production", "no canary any more", "another canary"],
)
def test_a_seal_ends_when_the_registry_goes_another_way_and_the_next_rollout_can_begin(
    sealed: Keeper, tmp_path: Path, stable: VersionRef, canary: VersionRef | None, holder: int | None, why: str
) -> None:
    sealed.follow(stable, canary, holder, NOON)
    again = keeper_in(tmp_path)
    assert (again.phase(), again.describe(NOON)["reason"]) == ("failed", why)
    assert (again.route().stable, again.route().canary) == (stable, None)
    assert str(again.seal(2, None, NOON)).startswith("aborted: ")
    outcome = again.outcome()
    assert outcome is not None
    again.closed(outcome)
    four = VersionRef(4, "/models/4", "digest4")
    assert again.follow(stable, four, 4, NOON) == 4


def test_a_promotion_that_is_cut_short_holds_its_seal_until_it_is_made_again(sealed: Keeper, tmp_path: Path) -> None:
    sealed.follow(ONE, TWO, 2, NOON + timedelta(hours=1))
    again = keeper_in(tmp_path)
    again.follow(ONE, TWO, 2, NOON + timedelta(hours=2))
    assert again.phase() == "sealed"
    again.follow(TWO, TWO, 2, NOON + timedelta(hours=3))  # cut short once more, before the alias canary was dropped
    assert again.phase() == "succeeded"


def test_what_cannot_be_written_does_not_happen_and_no_canary_answers_until_it_can_be(
    keeper: Keeper, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report(keeper, "a", counts(10))
    with no_room_in(tmp_path):
        for _ in range(3):
            with pytest.raises(StateNotWritten, match="nothing has changed"):
                report(keeper, "a", counts(20, failures=10))
            with pytest.raises(StateNotWritten):
                keeper.abort(2, "by hand", NOON)
            with pytest.raises(StateNotWritten):
                keeper.write_again()
        assert (keeper.phase(), taken(keeper)) == ("progressing", 10)
        assert (keeper.route().stable, keeper.route().canary) == (ONE, None)
        assert keeper.unwritten == "File exists"
    assert len(caplog.records) == 1
    keeper.write_again()
    assert keeper.unwritten is None
    assert keeper.route().canary is not None
    report(keeper, "a", counts(20, failures=10))
    assert (keeper.phase(), taken(keeper)) == ("failed", 20)


def test_a_seal_that_cannot_be_written_is_not_granted(keeper: Keeper, tmp_path: Path) -> None:
    report(keeper, "a", counts(600), at=NOON + timedelta(minutes=2))
    with no_room_in(tmp_path), pytest.raises(StateNotWritten):
        keeper.seal(2, None, NOON)
    assert keeper_in(tmp_path).phase() == keeper.phase() == "promoting"


def test_one_death_of_the_canary_process_is_survived_and_a_habit_of_dying_is_not(keeper: Keeper) -> None:
    keeper.canary_ready(TWO, "second life", NOON)
    assert keeper.phase() == "progressing"
    for life in range(MAX_BIRTHS):
        keeper.canary_ready(TWO, f"life {life}", NOON)
    assert keeper.phase() == "failed"


def test_a_restart_of_everything_is_no_death_of_the_canary_process(tmp_path: Path) -> None:
    keeper = keeper_in(tmp_path)
    keeper.follow(ONE, TWO, 2, NOON)
    for start in range(MAX_BIRTHS + 2):
        keeper = keeper_in(tmp_path)
        keeper.canary_ready(TWO, f"started {start}", NOON)
        assert keeper.phase() == "progressing"


def test_a_canary_process_that_stays_away_ends_the_rollout(keeper: Keeper) -> None:
    keeper.canary_missing(NOON)
    keeper.canary_missing(NOON + timedelta(seconds=ABSENT_SECONDS - 1))
    assert keeper.phase() == "progressing"
    keeper.canary_missing(NOON + timedelta(seconds=ABSENT_SECONDS + 1))
    assert keeper.phase() == "failed"


def test_a_version_that_cannot_be_loaded_never_takes_traffic(tmp_path: Path) -> None:
    keeper = keeper_in(tmp_path)
    keeper.follow(ONE, TWO, 2, NOON)
    keeper.canary_unusable(TWO, "digest differs", NOON)
    assert (keeper.phase(), keeper.route().canary) == ("failed", None)


def test_policy_minutes_are_scaled(tmp_path: Path) -> None:
    keeper = Keeper(SPEC, tmp_path, time_scale=1 / 60)
    keeper.follow(ONE, TWO, 2, NOON)
    assert keeper.describe(NOON)["policy"]["minutes"] == pytest.approx(1 / 60)


LADDER = ModelSpec(
    name="m", canary=CanarySpec(weights=(0.1, 0.5), shadow_minutes=1, minutes=1, max_minutes=10, min_success=0.9)
)


@pytest.mark.usefixtures("keeper")
def test_a_rollout_keeps_its_policy_whatever_the_declaration_says_meanwhile(tmp_path: Path) -> None:
    loose = SPEC.canary.model_copy(update={"max_p99_ms": 5000.0})
    again = Keeper(SPEC.model_copy(update={"canary": loose}), tmp_path, time_scale=1.0)
    again.follow(ONE, TWO, 2, NOON)
    route = again.route().canary
    assert route is not None
    tally = RolloutTally()
    tally.follow(route)
    tally.answered(route, "canary", "C-1", "p1", "refund", 101.0)
    told = tally.report()
    assert told is not None
    assert told.steps[0].canary.slow == 1  # by the 100 ms that its evidence speaks of


@given(
    steps=st.integers(1, 6),
    minutes=st.floats(0.1, 300),
    scale=st.sampled_from([1 / 60, 1 / 30, 0.1, 0.05, 0.01]),
)
def test_every_policy_survives_being_scaled_and_kept(steps: int, minutes: float, scale: float) -> None:
    weights = tuple((number + 1) / 10 for number in range(steps))
    policy = CanarySpec(weights=weights, minutes=minutes, max_minutes=minutes * steps).scaled(scale)
    assert CanarySpec.model_validate(policy.model_dump()) == policy


@pytest.mark.usefixtures("keeper")
def test_a_state_that_another_release_wrote_is_set_aside_and_the_canary_begins_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.json"
    newer = path.read_text().replace('"alpha":', '"bake_minutes":0,"alpha":')
    assert newer != path.read_text()
    path.write_text(newer)
    again = keeper_in(tmp_path)
    assert again.follow(ONE, TWO, 2, NOON) == 2
    (aside,) = tmp_path.glob("state.unreadable-*.json")
    assert aside.read_text() == newer
    assert f"set aside as {aside}" in caplog.text


def test_what_is_over_cannot_be_stopped_and_keeps_its_reason(keeper: Keeper) -> None:
    keeper.canary_unusable(TWO, "its files differ", NOON)
    refused = str(keeper.abort(2, "complaints", NOON))
    assert refused == "too late: the rollout is failed: the canary cannot be loaded: its files differ"
    assert keeper.evidence()["reason"] == "the canary cannot be loaded: its files differ"


def test_a_rollout_goes_from_copies_up_its_ladder_and_a_restart_keeps_its_place(tmp_path: Path) -> None:
    keeper = Keeper(LADDER, tmp_path, time_scale=1.0)
    keeper.follow(ONE, TWO, 2, NOON)
    keeper.canary_ready(TWO, "life", NOON)
    seen, said = [], []
    for step in range(3):
        canary = keeper.route().canary
        assert canary is not None
        seen.append((canary.step, canary.weight, canary.shadow, keeper.describe(NOON)["weight"]))
        mine = 400
        others = ArmCounts(requests=round(mine * (1 - canary.weight) / canary.weight))
        said.append(Counts(others, ArmCounts(requests=mine)))
        report(keeper, "a", *said, at=NOON + timedelta(minutes=step + 1))
        keeper = Keeper(LADDER, tmp_path, time_scale=1.0)
    assert seen == [(0, 0.1, True, 0.0), (1, 0.1, False, 0.1), (2, 0.5, False, 0.5)]
    assert keeper.phase() == "promoting"
    assert [judgement["action"] for judgement in keeper.describe(NOON)["history"]] == ["step", "step", "promote"]


def test_an_ab_test_counts_each_customer_in_one_group_whichever_replica_and_through_restarts(tmp_path: Path) -> None:
    split = HeldSplit(tmp_path)
    split.serve(customers=200, hours=1)
    split.restart()
    split.report(2)
    split.serve(customers=200, hours=3)
    state = RolloutState.from_dict(split.keeper.evidence()["rollout"])
    (counts,) = state.counts
    assert len(counts.groups) == GROUPS
    assert sum(counts.groups, Counts()) == replace(counts, groups=(), times_counted=0)
    assert counts.times_counted == 2  # once by each replica
    assert counts.stable.requests + counts.canary.requests == 1600
    groups = {group_of(f"C-{number}", state.salt, GROUPS) for number in range(200)}
    assert {number for number, of in enumerate(counts.groups) if of.stable.requests + of.canary.requests} == groups


def test_an_ab_test_ends_with_a_report_that_waits_for_a_person(tmp_path: Path) -> None:
    split = HeldSplit(tmp_path)
    split.serve(customers=400, hours=71)
    assert (split.keeper.phase(), split.keeper.awaiting()) == ("progressing", None)
    split.report(72)
    split.restart()
    assert split.keeper.phase() == "waiting_promotion"
    assert split.route().weight == 0.5  # held until somebody decides
    waiting = split.keeper.awaiting()
    assert waiting is not None
    comparison = waiting.evidence["rollout"]["history"][-1]["comparison"]
    assert comparison["final"]
    correct = comparison["differences"][2]
    assert correct["lower"] > 0.1  # none wrong against a fifth
    assert correct["stable_answers"] + correct["canary_answers"] == 1600
    split.keeper.submitted(waiting)
    split.restart()
    assert split.keeper.awaiting() is None
    person = Approval("carla", NOON + timedelta(hours=100))
    assert str(split.keeper.seal(2, None, NOON + timedelta(hours=73))).startswith("not ready")
    assert split.keeper.seal(2, person, NOON + timedelta(hours=101)) == "sealed"


def test_outside_of_an_ab_test_nothing_is_counted_by_group(keeper: Keeper) -> None:
    route = keeper.route().canary
    assert route is not None
    tally = RolloutTally()
    tally.follow(route)
    tally.answered(route, "canary", "C-1", "p1", "refund", 1.0)
    assert steps_of(tally)[0].groups == ()


def route(step: int = 0, rollout_id: str = "r1") -> CanaryRoute:
    return CanaryRoute(TWO, rollout_id, step, salt="s", weight=0.1, shadow=False, beat=1, slow_ms=100.0)


def test_a_replica_counts_entities_once_and_judges_each_prediction_once() -> None:
    tally = RolloutTally()
    tally.answered(route(), "canary", "C-1", "before any rollout", "refund", 1.0)
    assert tally.report() is None
    tally.follow(route())
    tally.answered(route(), "canary", "C-1", "p1", "refund", 50.0)
    tally.answered(route(), "canary", "C-1", "p2", "refund", 150.0)
    tally.failed(route(), "canary", "C-2")
    tally.judged(Label("p1", "refund"))
    tally.judged(Label("p2", "other"))
    tally.judged(Label("p2", "other"))
    tally.answered(route(rollout_id="r0"), "stable", "C-3", "p3", "refund", 1.0)
    canary = ArmCounts(requests=3, failures=1, slow=1, judged=2, wrong=1, entities=2)
    assert steps_of(tally) == [Counts(canary=canary, times_counted=1)]


def test_what_was_asked_at_one_step_counts_there_however_late_answer_and_label_come() -> None:
    tally = RolloutTally()
    tally.follow(route(0))
    tally.answered(route(0), "stable", "C-1", "p1", "refund", 1.0)
    tally.follow(route(1))
    tally.answered(route(0), "stable", "C-1", "p2", "refund", 1.0)  # was on its way
    tally.answered(route(1), "canary", "C-1", "p3", "refund", 1.0)
    tally.judged(Label("p1", "other"))
    assert steps_of(tally) == [
        Counts(stable=ArmCounts(requests=2, judged=1, wrong=1, entities=1), times_counted=1),
        Counts(canary=ArmCounts(requests=1, entities=1), times_counted=1),  # a customer who moved is new in this arm
    ]


def steps_of(tally: RolloutTally) -> list[Counts]:
    said = tally.report()
    assert said is not None
    return list(said.steps)


def counting() -> RolloutTally:
    tally = RolloutTally()
    tally.follow(route())
    return tally


def exchange(tally: RolloutTally, guard: StrayLabels, *, answer_lost: bool = False) -> None:
    said = tally.report()
    assert said is not None
    heard = guard.exchange(said.strays, said.heard)
    if not answer_lost:
        tally.exchanged(said, heard)


def judged(tally: RolloutTally) -> tuple[int, int]:
    canary = steps_of(tally)[0].canary
    return canary.judged, canary.wrong


def test_a_label_that_reaches_another_replica_finds_the_one_that_answered() -> None:
    answered, other, guard = counting(), counting(), StrayLabels()
    answered.answered(route(), "canary", "C-1", "p1", "refund", 1.0)
    other.judged(Label("p1", "query"))
    exchange(other, guard, answer_lost=True)  # and is said again
    for _ in range(3):
        exchange(other, guard)
        exchange(answered, guard)
    assert judged(answered) == (1, 1)
    assert judged(other) == (0, 0)
    said = other.report()
    assert said is not None
    assert said.strays == ()


def test_a_label_that_strays_is_heard_of_also_after_the_guard_was_restarted() -> None:
    answered, other = counting(), counting()
    answered.answered(route(), "canary", "C-1", "p1", "refund", 1.0)
    answered.answered(route(), "canary", "C-1", "p2", "refund", 1.0)
    for label in ("p1", "p2"):
        guard = StrayLabels()
        other.judged(Label(label, "refund"))
        exchange(other, guard)
        exchange(answered, guard)
    assert judged(answered) == (2, 0)


def test_a_label_that_is_faster_than_the_canarys_answer_to_a_copy_is_not_lost() -> None:
    tally, guard = counting(), StrayLabels()
    tally.judged(Label("p1", "refund"))
    tally.answered(route(), "canary", "C-1", "p1", "refund", 1.0)
    exchange(tally, guard)
    assert judged(tally) == (1, 0)


def test_labels_that_nobody_knows_are_kept_within_bounds_and_only_while_a_rollout_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stray_labels, "REMEMBERED", 3)
    tally, guard = counting(), StrayLabels()
    for number in range(10):
        tally.judged(Label(f"p{number}", "refund"))
    said = tally.report()
    assert said is not None
    assert [label.prediction_id for label in said.strays] == ["p7", "p8", "p9"]
    assert len(guard.exchange(said.strays * 5, 0).labels) == 3
    tally.exchanged(said, Labels())
    tally.follow(None)
    tally.judged(Label("p10", "refund"))
    after = tally.report()
    assert after is not None
    assert after.strays == ()
