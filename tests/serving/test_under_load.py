"""Nobody is failed: two replicas of the ingress under a constant load, while everything around them changes or dies."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial

import polars as pl
import pytest

from mlops_assets.resources.feast import FeatureStoreDoor
from tests.serving.factories import MODEL, write_artefact, write_slow_artefact
from tests.serving.steady import CUSTOMERS, Seen, Steady, capacity
from tests.serving.world import POLICY, Endpoint, declare, new_endpoint, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WEIGHTS = (0.3, 0.6)
SHARE = 0.7  # of what the endpoint can do
LOCKED_SECONDS = 6.0
HEAVY, HEAVY_DEADLINE_MS = "zz_heavy", 2000.0


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Two replicas, one version in production, features online for every customer."""
    endpoint = new_endpoint(tmp_path_factory.mktemp("under_load"), ingress_replicas=2, replay_clock=False)
    policy = {**POLICY, "weights": list(WEIGHTS), "minutes": 0.02}
    declare(endpoint.settings.models_dir, MODEL, policy, deadline_ms=5000.0)  # a busy machine is no overload
    door = FeatureStoreDoor(endpoint.settings)
    door.apply()
    at = datetime.now(UTC)
    rows = [{"customer_id": f"C-{n}", "event_timestamp": at, "created_timestamp": at} for n in range(CUSTOMERS)]
    door.push(pl.DataFrame([row | dict.fromkeys(door.feature_names, 1.0) for row in rows]))
    endpoint.publish(partial(write_artefact, label="refund"), "production")
    declare(endpoint.settings.models_dir, HEAVY, POLICY, deadline_ms=HEAVY_DEADLINE_MS)
    endpoint.publish(partial(write_slow_artefact, label="refund"), "production", HEAVY)
    endpoint.start()
    try:
        wait_until(lambda: _sources(endpoint) == {"online"}, 60)
        yield endpoint
    finally:
        assert endpoint.stop() == []


@pytest.fixture(scope="module")
def rate(endpoint: Endpoint) -> float:
    """Measured where a request costs most: with a canary, whose share of the requests goes through two processes."""
    version = begin_canary(endpoint, "greeting")
    wait_until(lambda: endpoint.predict().is_success and capacity(endpoint, 1.0) and heaviest(endpoint), 60)
    measured = capacity(endpoint)
    abort(endpoint, version)
    return SHARE * measured


def heaviest(endpoint: Endpoint) -> bool:
    canary = endpoint.health()["models"][MODEL]["canary"]
    return canary is not None and canary["weight"] == WEIGHTS[-1]


def _sources(endpoint: Endpoint) -> set[str]:
    return {endpoint.predict("C-1").json()["features_source"] for _ in range(8)}


def begin_canary(endpoint: Endpoint, label: str) -> int:
    version = endpoint.publish(partial(write_artefact, label=label), "canary").version
    wait_until(lambda: endpoint.rollout().get("version") == version, 60)
    wait_until(lambda: endpoint.rollout()["phase"] == "progressing", 60)
    return version


def abort(endpoint: Endpoint, version: int) -> None:
    stop = {"version": version, "reason": "end of test"}
    assert endpoint.admin(f"/models/{MODEL}/rollout/abort", stop).is_success
    wait_until(lambda: endpoint.rollout()["registry_told"], 60)


def nobody_was_failed(endpoint: Endpoint, seen: Seen) -> None:
    """Every request was answered with 200, and each answer stands in the log exactly once."""
    assert seen.failures == {}
    assert len(seen.acknowledged) > 50
    print(f"{len(seen.acknowledged)} answered, p50 {seen.percentile(0.5):.0f} ms, p99 {seen.percentile(0.99):.0f} ms")
    in_log = Counter(record["prediction_id"] for record in endpoint.predictions())
    assert {in_log[prediction_id] for prediction_id in seen.acknowledged} == {1}


def test_a_canary_starts_climbs_and_is_promoted(endpoint: Endpoint, rate: float) -> None:
    production = endpoint.health()["models"][MODEL]["stable"]["version"]
    with Steady(endpoint, rate) as load:
        version = begin_canary(endpoint, "other")
        wait_until(lambda: endpoint.rollout()["phase"] == "promoting", 150)
        assert endpoint.admin(f"/models/{MODEL}/rollout/seal", {"version": version}).json()["answer"] == "sealed"
        endpoint.registry.move_alias(MODEL, "production", version, expected=production, evidence_name="rollout")
        wait_until(lambda: {endpoint.predict("C-1").json()["model_version"] for _ in range(8)} == {version}, 60)
        wait_until(lambda: endpoint.rollout()["registry_told"], 60)
    assert load.seen.arms["canary"] > 0
    nobody_was_failed(endpoint, load.seen)


def test_a_canary_is_aborted(endpoint: Endpoint, rate: float) -> None:
    with Steady(endpoint, rate) as load:
        version = begin_canary(endpoint, "query")
        wait_until(lambda: load.seen.arms["canary"] > 20)
        abort(endpoint, version)
    nobody_was_failed(endpoint, load.seen)


def test_the_canary_is_killed(endpoint: Endpoint, rate: float) -> None:
    with Steady(endpoint, rate) as load:
        version = begin_canary(endpoint, "farewell")
        wait_until(lambda: load.seen.arms["canary"] > 20)
        for pid in endpoint.pids("CanaryProcess"):
            os.kill(pid, signal.SIGKILL)
        answered = len(load.seen.acknowledged)
        wait_until(lambda: len(load.seen.acknowledged) > answered + 5 * rate, 60)
    nobody_was_failed(endpoint, load.seen)
    if endpoint.rollout()["phase"] in ("progressing", "promoting"):
        abort(endpoint, version)


def test_one_of_the_two_ingress_replicas_is_killed(endpoint: Endpoint, rate: float) -> None:
    with Steady(endpoint, rate) as load:
        wait_until(lambda: len(load.seen.acknowledged) > rate)
        before = set(endpoint.pids("Ingress"))
        os.kill(endpoint.health()["pid"], signal.SIGKILL)
        wait_until(lambda: len(set(endpoint.pids("Ingress")) - before) == 1, 60)
        wait_until(lambda: endpoint.health()["pid"] not in before, 60)
    nobody_was_failed(endpoint, load.seen)


def test_the_registry_is_locked(endpoint: Endpoint, rate: float) -> None:
    database = endpoint.settings.tracking_uri.removeprefix("sqlite:///")
    with Steady(endpoint, rate) as load, closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(LOCKED_SECONDS)  # the fault itself lasts so long
        connection.execute("ROLLBACK")
    nobody_was_failed(endpoint, load.seen)


def test_the_feature_store_is_locked_and_then_away(endpoint: Endpoint, rate: float) -> None:
    store = endpoint.settings.home / "feast" / "online.db"
    with Steady(endpoint, rate) as load:
        with closing(sqlite3.connect(store, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            locked = len(load.seen.acknowledged)
            wait_until(lambda: len(load.seen.acknowledged) > locked + 3 * rate, 60)
            connection.execute("ROLLBACK")
        away = store.rename(store.with_suffix(".away"))
        gone = len(load.seen.acknowledged)
        wait_until(lambda: len(load.seen.acknowledged) > gone + 3 * rate, 60)
        away.rename(store)
    nobody_was_failed(endpoint, load.seen)
    assert load.seen.sources["default"] > 0, load.seen.sources
    wait_until(lambda: _sources(endpoint) == {"online"}, 60)


def test_five_times_too_much_is_refused_in_time_and_the_rest_is_answered(endpoint: Endpoint) -> None:
    able = capacity(endpoint, 6.0, clients=64, model=HEAVY)
    seconds = 8.0
    with Steady(endpoint, 5 * able, HEAVY, connections=0) as load:
        time.sleep(seconds)
    seen = load.seen
    goodput = seen.statuses[200] / seconds
    print(
        f"capacity {able:.0f}/s, offered {load.rate:.0f}/s, answered {goodput:.0f}/s, {dict(seen.statuses)}, "
        f"p50 {seen.percentile(0.5):.0f} ms, p99 {seen.percentile(0.99):.0f} ms"
    )
    assert (set(seen.statuses), seen.broken, seen.not_problems) == ({200, 429}, Counter(), [])
    # A queue without a bound would answer next to nothing in time; how much it is depends on who makes the load where.
    assert goodput > 0.25 * able
    assert seen.percentile(0.99) < 2 * HEAVY_DEADLINE_MS
    assert endpoint.predict().status_code == 200
