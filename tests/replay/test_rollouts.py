"""A rollout under another policy: judged from its logged requests as the guard would have, or said to be unknown."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from mlops_assets.release.rollout import Approval, Phase
from mlops_assets.replay.rollouts import RolloutAgain, as_recorded, judge_again
from mlops_assets.serving.keeper import Keeper
from mlops_assets.spec import CanarySpec
from tests.replay.logged import EXCHANGE, NOON, Canary, Logged, record

pytestmark = pytest.mark.slow  # thousands of logged requests, judged one exchange at a time

RAN = CanarySpec(weights=(0.2,), minutes=10, max_minutes=25)
# As good as the policy that ran, and yet another one: so the log is counted anew.
ALIKE = RAN.model_copy(update={"max_accuracy_loss": RAN.max_accuracy_loss + 1e-9})

CANARIES = {
    "fit": (Canary(), "promoted"),
    "failing": (Canary(failures=0.2), "aborted"),
    "slow": (Canary(slow=0.3), "aborted"),
    "wrong": (Canary(wrong=0.3), "aborted"),
    "doubtful": (Canary(slow=0.009), "inconclusive"),
}


def again(logged: Logged, policy: CanarySpec) -> RolloutAgain:
    return judge_again(logged.state, policy, logged.requests, logged.feedback, EXCHANGE)


def changed(**fields: object) -> CanarySpec:
    return CanarySpec(**{**RAN.model_dump(), **fields})


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    return record(tmp_path_factory.mktemp("fit"), RAN)


@pytest.mark.parametrize("canary", CANARIES)
def test_the_log_gives_the_verdict_that_the_counts_gave_and_at_the_same_time(tmp_path: Path, canary: str) -> None:
    behaviour, outcome = CANARIES[canary]
    logged = record(tmp_path, RAN, behaviour)
    recorded, from_counts, from_log = as_recorded(logged.state), again(logged, RAN), again(logged, ALIKE)
    assert {recorded.outcome, from_counts.outcome, from_log.outcome} == {outcome}
    assert from_counts == recorded
    assert recorded.at is not None
    assert from_log.at is not None
    assert abs(from_log.at - recorded.at) <= timedelta(seconds=2 * EXCHANGE)


def test_a_shorter_step_promotes_sooner(fit: Logged) -> None:
    sooner = again(fit, changed(minutes=8))
    assert (sooner.outcome, sooner.at) == ("promoted", NOON + timedelta(minutes=8))


def test_a_stricter_limit_stops_what_was_promoted(tmp_path: Path) -> None:
    logged = record(tmp_path, changed(max_p99_ms=1000.0), Canary(slow=0.3))
    assert as_recorded(logged.state).outcome == "promoted"
    stopped = again(logged, changed(max_p99_ms=100.0))
    assert stopped.outcome == "aborted"
    assert stopped.reason.startswith("guard.slow")


def test_a_smaller_share_is_replayed_on_its_own_customers(fit: Logged) -> None:
    smaller = again(fit, changed(weights=[0.1]))
    assert smaller.outcome == "promoted"
    assert smaller.assumed == "customers between 10 % and 20 % are left out"


UNKNOWN = {
    "a larger share": ({"weights": [0.3]}, "30 % of customers would take the canary after 0.0 minutes, only 20 %"),
    "a further step": (
        {"weights": [0.2, 0.5], "minutes": 5},
        "50 % of customers would take the canary after 5.0 minutes, only 20 %",
    ),
    "a shadow step": ({"shadow_minutes": 1}, "copies of the requests of 20 % of customers were never sent"),
    "more time": ({"minutes": 20}, "no verdict within the 10.0 minutes on record: 10.0 of at least 20 minutes"),
    "a person": ({"approval": "manual"}, "it waits for a person after 10.0 minutes, and nobody was asked"),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_the_log_cannot_say_is_said(fit: Logged, what: str) -> None:
    changes, reason = UNKNOWN[what]
    unknown = again(fit, changed(**changes))
    assert unknown.outcome is None
    assert unknown.reason.startswith(reason)


def test_requests_that_were_lost_are_noticed(fit: Logged) -> None:
    lost = replace(fit, requests=fit.requests.head(1000))
    assert again(lost, ALIKE).reason.startswith("the log tells of 1000 of the ")
    older = replace(fit, requests=fit.requests.with_columns(counted=pl.lit(None, pl.String)))
    assert again(older, ALIKE).reason.startswith("the log tells of 0 of the ")


def test_a_canary_that_a_person_stopped_is_stopped_under_any_policy(tmp_path: Path) -> None:
    def by_hand(keeper: Keeper, now: datetime) -> None:
        if now == NOON + timedelta(minutes=8):
            keeper.abort(2, "not on a friday", now)

    logged = record(tmp_path, RAN, stop=by_hand)
    for policy in (RAN, ALIKE):
        stopped = again(logged, policy)
        assert (stopped.outcome, stopped.reason) == ("aborted", "stopped by hand: not on a friday")
    assert again(logged, changed(minutes=6)).outcome == "promoted"  # it would have been over by then


def test_an_approval_on_record_counts_once_it_is_judged_fit(fit: Logged) -> None:
    later = NOON + timedelta(minutes=15)
    approved = replace(fit.state, phase=Phase.SEALED, approval=Approval("ann", later))
    promoted = again(replace(fit, state=approved), changed(approval="manual"))
    assert (promoted.outcome, promoted.at, promoted.reason) == ("promoted", later, "approved by ann")
