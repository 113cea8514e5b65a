"""Whole rollouts as they run: real Ray, real registry, real HTTP; a model of its own for each policy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.release.rollout import RolloutState, replay
from tests.serving.factories import write_artefact, write_broken_artefact, write_slow_artefact
from tests.serving.load import Load
from tests.serving.world import POLICY, Endpoint, declare, new_endpoint, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NOON = "2026-03-01T12:00:00Z"
POLICIES: dict[str, dict[str, Any]] = {
    "errors": {},
    "slow": {"max_p99_ms": 100.0},
    "wrong": {},
    "equal": {"weights": [0.5]},
    "idle": {"max_minutes": 0.2},
    "ladder": {"weights": [0.5, 0.9]},
    "shadow": {"weights": [0.5], "shadow_minutes": 0.05},
}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Every model has a version ("refund") in production."""
    endpoint = new_endpoint(tmp_path_factory.mktemp("endpoint"))
    for model, policy in POLICIES.items():
        declare(endpoint.settings.models_dir, model, {**POLICY, **policy})
        endpoint.publish(partial(write_artefact, label="refund"), "production", model)
    with endpoint.running():
        endpoint.admin("/clock", {"now": NOON})
        yield endpoint


def begin(endpoint: Endpoint, model: str, artefact: Callable[[Path], str]) -> int:
    version = endpoint.publish(artefact, "canary", model).version
    wait_until(lambda: endpoint.rollout(model)["phase"] not in ("none", "initializing"), 60)
    return version


def end(endpoint: Endpoint, model: str, seconds: float = 120) -> dict[str, Any]:
    """The rollout once it is judged."""

    def judged() -> dict[str, Any] | None:
        rollout = endpoint.rollout(model)
        return rollout if rollout["phase"] not in ("initializing", "progressing") else None

    found: dict[str, Any] = wait_until(judged, seconds)
    return found


def follows_from_its_evidence(endpoint: Endpoint, model: str, version: int) -> bool:
    """Whether every judgement in the document that the registry keeps is made again from what it holds."""
    wait_until(lambda: endpoint.rollout(model)["registry_told"], 60)
    document = endpoint.registry.evidence(model, version)["rollout"]["rollout"]
    again = replay(RolloutState.from_dict(document))
    return bool(again) and all((j.action, j.reason) == (d.action, d.reason) for j, d in again)


def test_a_canary_that_raises_errors_is_stopped_and_its_customers_are_answered(endpoint: Endpoint) -> None:
    with Load(endpoint, model="errors") as load:
        version = begin(endpoint, "errors", write_broken_artefact)
        rollout = end(endpoint, "errors")
    assert (rollout["phase"], set(load.versions), set(load.statuses)) == ("failed", {1}, {200})
    assert rollout["reason"].startswith(("guard.failures", "guard.success_floor"))
    assert rollout["counts"]["canary"]["failures"] <= 20
    assert follows_from_its_evidence(endpoint, "errors", version)


def test_a_slow_canary_is_stopped(endpoint: Endpoint) -> None:
    with Load(endpoint, model="slow", threads=2) as load:
        version = begin(endpoint, "slow", partial(write_slow_artefact, label="refund"))
        rollout = end(endpoint, "slow")
    assert (rollout["phase"], set(load.statuses)) == ("failed", {200})
    # On a busy machine it may be too late altogether, which is a failure.
    assert rollout["reason"].startswith(("guard.slow", "guard.failures", "guard.success_floor"))
    assert follows_from_its_evidence(endpoint, "slow", version)


def test_a_canary_that_answers_wrongly_is_stopped_by_the_labels_that_come_back(endpoint: Endpoint) -> None:
    with Load(endpoint, model="wrong", truth="refund"):
        version = begin(endpoint, "wrong", partial(write_artefact, label="other"))
        rollout = end(endpoint, "wrong")
    assert rollout["phase"] == "failed"
    assert rollout["reason"].startswith("guard.wrong")
    assert follows_from_its_evidence(endpoint, "wrong", version)


def test_an_equal_canary_is_found_fit(endpoint: Endpoint) -> None:
    with Load(endpoint, gap_seconds=0.0, model="equal", threads=4, truth="refund") as load:
        version = begin(endpoint, "equal", partial(write_artefact, label="refund", logit=5.0))
        rollout = end(endpoint, "equal")
    assert (rollout["phase"], set(load.statuses)) == ("promoting", {200})
    assert rollout["counts"]["canary"]["requests"] >= 299
    assert rollout["counts"]["canary"]["judged"] > 0
    sealed = endpoint.admin("/models/equal/rollout/seal", {"version": version})
    assert sealed.json()["answer"] == "sealed"


def test_a_canary_without_traffic_never_passes_and_says_what_it_waits_for(endpoint: Endpoint) -> None:
    version = begin(endpoint, "idle", partial(write_artefact, label="refund", logit=5.0))
    waits = endpoint.rollout("idle")["decision"]
    assert waits["action"] == "continue"
    assert "0 requests" in waits["reason"]
    assert "299 requests are needed" in endpoint.rollout("idle")["decision"]["claims"][6]["message"]
    rollout = end(endpoint, "idle")
    assert rollout["phase"] == "inconclusive"
    assert "the stable version stays" in rollout["reason"]
    assert follows_from_its_evidence(endpoint, "idle", version)


def test_a_canary_climbs_its_ladder_and_no_customer_goes_back_and_forth(endpoint: Endpoint) -> None:
    with Load(endpoint, gap_seconds=0.0, model="ladder", threads=4) as load:
        version = begin(endpoint, "ladder", partial(write_artefact, label="other"))
        rollout = end(endpoint, "ladder", 240)
    assert (rollout["phase"], rollout["weight"], set(load.statuses)) == ("promoting", 0.9, {200})
    assert [judgement["action"] for judgement in rollout["history"]] == ["step", "promote"]
    assert all(step["counts"]["canary"]["requests"] >= 299 for step in rollout["steps"])
    arms: defaultdict[str, list[str]] = defaultdict(list)
    for record in sorted(endpoint.predictions("ladder"), key=lambda record: record["received_at"]):
        if record["error"] is None:  # else the canary was too late, and the stable version stood in
            arms[record["customer_id"]].append(record["arm"])
    moved = [given for given in arms.values() if len(set(given)) == 2]
    assert moved
    assert all(given == sorted(given, reverse=True) for given in moved)  # stable first, then the canary for good
    assert endpoint.admin("/models/ladder/rollout/abort", {"version": version, "reason": "end of test"}).is_success


def test_a_shadow_step_compares_in_silence_before_a_customer_meets_the_canary(endpoint: Endpoint) -> None:
    with Load(endpoint, gap_seconds=0.0, model="shadow", threads=4) as load:
        version = begin(endpoint, "shadow", partial(write_artefact, label="other"))
        wait_until(lambda: len(endpoint.rollout("shadow")["steps"]) == 2, 120)
        wait_until(lambda: load.arms["canary"] > 0, 30)
    first, second = endpoint.rollout("shadow")["steps"][:2]
    assert first["counts"]["compared"] >= 299
    assert first["counts"]["agreed"] == 0  # it says "other" where the stable version says "refund"
    assert second["counts"]["compared"] == 0
    assert set(load.statuses) == {200}
    assert endpoint.admin("/models/shadow/rollout/abort", {"version": version, "reason": "end of test"}).is_success
