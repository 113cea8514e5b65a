"""Nobody is failed: two replicas of the ingress under a constant load, while everything around them changes or dies."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import resource
import signal
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import polars as pl
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlops_assets.monitoring.predictions import join_labels, read_feedback, read_predictions
from mlops_assets.release.assignment import in_canary
from mlops_assets.resources.feast import FeatureStoreDoor
from mlops_assets.serving.haproxy import METRICS_PATH, REQUEST_SECONDS
from mlops_assets.spec import ModelSpec
from tests.serving.factories import MODEL, write_artefact, write_working_artefact
from tests.serving.steady import CUSTOMERS, Seen, Steady, capacity, closed_loop
from tests.serving.world import POLICY, Endpoint, declare, new_endpoint, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(600)]
WEIGHTS = (0.3, 0.6)
SHARE = 0.7  # of what the endpoint can do
LOCKED_SECONDS = 60.0
BACK_SECONDS = 120.0  # the promise is 30, on a machine of its own
# Of what the endpoint can do, for each second of a core that the load leaves to it. The promise is 0.9, and 0.91 to
# 0.96 was measured; the rest is by how much two shared cores differ from one minute to the next.
GOODPUT = 0.85
logits = itertools.count(4.1, 0.1)
CORES = len(os.sched_getaffinity(0))
WORKING, BEST_EFFORT = "zz_working", "zz_best_effort"
LOOKED_UP = 1.0  # every feature of every customer; no default is


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
    door.push(pl.DataFrame([row | dict.fromkeys(door.feature_names, LOOKED_UP) for row in rows]))
    endpoint.publish(partial(write_artefact, label="refund"), "production")
    declare(endpoint.settings.models_dir, WORKING, POLICY)
    endpoint.publish(partial(write_working_artefact, label="refund"), "production", WORKING)
    declare(endpoint.settings.models_dir, BEST_EFFORT, POLICY, deadline_ms=5000.0, log="best_effort")
    endpoint.publish(partial(write_artefact, label="refund"), "production", BEST_EFFORT)
    with endpoint.running():
        wait_until(lambda: _sources(endpoint) == {"online"}, 60)
        yield endpoint


@pytest.fixture(scope="module")
def rate(endpoint: Endpoint) -> float:
    """Measured where a request costs most: with a canary, whose share of the requests goes through two processes."""
    version = begin_canary(endpoint, "greeting")
    wait_until(lambda: endpoint.predict().is_success and capacity(endpoint, 1.0) and heaviest(endpoint), 60)
    measured = capacity(endpoint)
    abort(endpoint, version)
    return SHARE * measured


Standing = dict[str, dict[str, object] | None]


def standing(endpoint: Endpoint) -> Standing | None:
    """The version in each arm, as the replica says that is asked; None while nobody answers."""
    reply = endpoint.client.get("/health")
    return {arm: reply.json()["models"][MODEL][arm] for arm in ("stable", "canary")} if reply.is_success else None


def heaviest(endpoint: Endpoint) -> Standing | None:
    """The version in each arm once the canary has its last weight; the other replica may hear of it later."""
    now = standing(endpoint)
    return now if now and now["canary"] and now["canary"]["weight"] == WEIGHTS[-1] else None


def _sources(endpoint: Endpoint) -> set[str]:
    return {endpoint.predict("C-1").json()["features_source"] for _ in range(8)}


def publish(endpoint: Endpoint, label: str, alias: str) -> int:
    """A new version, also where another one gave the same label."""
    return endpoint.publish(partial(write_artefact, label=label, logit=next(logits)), alias).version


def begin_canary(endpoint: Endpoint, label: str) -> int:
    version = publish(endpoint, label, "canary")
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
    logged_once(endpoint, seen)


def logged_once(endpoint: Endpoint, seen: Seen) -> None:
    """Each prediction that was answered is there exactly once, as the platform ingests its log."""
    home = endpoint.settings.model_home(MODEL)
    rows = join_labels(read_predictions(home.predictions).rows, read_feedback(home.feedback).rows, datetime.now(UTC))
    ingested = Counter(rows["message_id"])
    assert {ingested[prediction_id] for prediction_id in seen.acknowledged} == {1}


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


def test_a_canary_is_superseded(endpoint: Endpoint, rate: float) -> None:
    with Steady(endpoint, rate) as load:
        first = begin_canary(endpoint, "query")
        wait_until(lambda: load.seen.arms["canary"] > 20)
        second = publish(endpoint, "complaint", "candidate")
        endpoint.registry.move_alias(MODEL, "canary", second, expected=first, evidence_name="gate")
        wait_until(lambda: endpoint.rollout()["version"] == second, 60)
        wait_until(lambda: endpoint.rollout()["phase"] == "progressing", 60)
        abort(endpoint, second)
    assert endpoint.registry.get(MODEL, first).tags["rollout"] == "failed"
    nobody_was_failed(endpoint, load.seen)


def test_the_registry_is_locked(endpoint: Endpoint, rate: float) -> None:
    """It can be read, but not told; how it is when it is away altogether is `test_registry_away`'s subject."""
    database = endpoint.settings.tracking_uri.removeprefix("sqlite:///")
    with Steady(endpoint, rate) as load:
        version = begin_canary(endpoint, "query")
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            stop = {"version": version, "reason": "while nobody can be told"}
            assert endpoint.admin(f"/models/{MODEL}/rollout/abort", stop).is_success
            time.sleep(LOCKED_SECONDS)  # the fault itself lasts so long
            assert endpoint.rollout()["registry_told"] is False
            connection.execute("ROLLBACK")
        wait_until(lambda: endpoint.rollout()["registry_told"], 60)
        abort(endpoint, begin_canary(endpoint, "complaint"))
    assert endpoint.registry.get(MODEL, version).tags["rollout"] == "failed"
    nobody_was_failed(endpoint, load.seen)


@contextmanager
def full_disk(endpoint: Endpoint) -> Iterator[None]:
    """No file of the ingress replicas may grow: to the writer a disk that is full."""
    replicas = [psutil.Process(pid) for pid in endpoint.pids("Ingress")]
    assert len(replicas) == 2
    before = [replica.rlimit(resource.RLIMIT_FSIZE) for replica in replicas]
    for replica, (_, hard) in zip(replicas, before, strict=True):
        replica.rlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        for replica, limits in zip(replicas, before, strict=True):
            replica.rlimit(resource.RLIMIT_FSIZE, limits)


def test_the_disk_of_the_log_is_full(endpoint: Endpoint, rate: float) -> None:
    """With a mandatory log nothing is answered that is not logged; with best effort, what is not is counted."""
    with Steady(endpoint, rate / 2) as mandatory, Steady(endpoint, rate / 2, BEST_EFFORT) as best_effort:
        wait_until(lambda: min(len(mandatory.seen.acknowledged), len(best_effort.seen.acknowledged)) > rate, 60)
        with full_disk(endpoint):
            wait_until(lambda: mandatory.seen.statuses[503] > rate, 60)
            full = len(mandatory.seen.acknowledged)
        wait_until(lambda: len(mandatory.seen.acknowledged) > full + 2 * rate, 60)
        refused = mandatory.seen.statuses[503]
        wait_until(lambda: len(mandatory.seen.acknowledged) > full + 4 * rate, 60)
    assert (set(mandatory.seen.statuses), mandatory.seen.broken) == ({200, 503}, Counter())
    assert [why for why in mandatory.seen.details if "nothing is answered that is not logged" not in why] == []
    assert mandatory.seen.statuses[503] == refused  # it has recovered
    logged_once(endpoint, mandatory.seen)
    assert best_effort.seen.failures == {}
    logged = set(read_predictions(endpoint.settings.model_home(BEST_EFFORT).predictions).rows["prediction_id"])
    unlogged = sum(prediction_id not in logged for prediction_id in best_effort.seen.acknowledged)
    assert unlogged > 0
    wait_until(lambda: alarmed(endpoint, BEST_EFFORT) == unlogged)
    assert alarmed(endpoint, MODEL) == mandatory.seen.statuses[503]


def alarmed(endpoint: Endpoint, model: str) -> int:
    """What Prometheus reads of records that could not be written: a rule alarms on it."""
    told = re.findall(
        rf'^mlops_log_failures_total{{.*model="{model}".*}} (\S+)$',
        endpoint.client.get("/metrics").text,
        re.MULTILINE,
    )
    return int(sum(map(float, told)))


def test_callers_that_send_half_a_request_hold_up_nobody(endpoint: Endpoint, rate: float) -> None:
    half = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    address = (endpoint.settings.host, endpoint.settings.serve_port)
    with Steady(endpoint, rate) as load, ExitStack() as opened:
        links = [opened.enter_context(socket.create_connection(address, 3 * REQUEST_SECONDS)) for _ in range(200)]
        for link in links:
            link.sendall(half)
        assert {link.recv(12) for link in links} == {b"HTTP/1.1 408"}
    nobody_was_failed(endpoint, load.seen)
    assert load.seen.percentile(0.99) < 1000 * REQUEST_SECONDS / 10


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Nobody can begin to read: every read mark of the write-ahead log is taken (sqlite.org/walformat.html).

    A transaction stops no reader of such a store, and its exclusive mode is not to be had while one has it open.
    """
    with store.with_name(f"{store.name}-shm").open("rb+") as index:
        fcntl.lockf(index, fcntl.LOCK_EX, 5, 123)
        yield


@contextmanager
def away(store: Path) -> Iterator[None]:
    moved = store.rename(store.with_suffix(".away"))
    try:
        yield
    finally:
        moved.rename(store)


def sources_of(load: Steady, answers: float) -> Counter[str]:
    """Where the features of the next so many answers come from."""
    before = load.seen.sources.copy()
    wait_until(lambda: load.seen.sources.total() >= before.total() + answers, 60)
    return load.seen.sources - before


def computed_from_what_was_told(endpoint: Endpoint, seen: Seen) -> None:
    """The log flags the same answers as the replies did, and has the stated defaults for exactly those."""
    logged = read_predictions(endpoint.settings.model_home(MODEL).predictions).rows
    logged = logged.filter(pl.col("prediction_id").is_in(seen.acknowledged))
    assert Counter(logged["features_source"]) == seen.sources
    defaults = ModelSpec(name=MODEL).features.defaults
    values = {"online": dict.fromkeys(defaults, LOOKED_UP), "default": defaults}
    for source, features in logged.select("features_source", "features").unique().iter_rows():
        assert json.loads(features) == values[source]


def test_the_feature_store_is_locked_slow_and_away(endpoint: Endpoint, rate: float) -> None:
    """Slow is one that can be read now and then; all the while everybody is answered in time."""
    store = endpoint.settings.home / "feast" / "online.db"
    with Steady(endpoint, rate / 2) as load:  # to ask the store costs more than to remember what it said
        for gone in (locked, away):
            with gone(store):
                wait_until(lambda: set(sources_of(load, load.rate)) == {"default"}, 60)
                assert set(sources_of(load, 3 * load.rate)) == {"default"}
                assert endpoint.predict("C-1").json()["features_reason"].startswith("feature store: ")
            wait_until(lambda: set(sources_of(load, load.rate)) == {"online"}, 60)
        for _ in range(5):
            with locked(store):
                wait_until(lambda: sources_of(load, 1)["default"], 60)
            wait_until(lambda: sources_of(load, 1)["online"], 60)
    nobody_was_failed(endpoint, load.seen)
    computed_from_what_was_told(endpoint, load.seen)
    assert load.seen.percentile(0.99) < 1000


def per_core(seen: Seen) -> float:
    """Answers for each second of a core that making the load left to the endpoint."""
    return seen.statuses[200] / (CORES * seen.seconds - seen.processor_seconds)


def test_five_times_too_much_is_refused_in_time_and_the_rest_is_answered(endpoint: Endpoint) -> None:
    """The load takes its part of the two cores: what is left of them is what an answer is counted against."""
    capacity(endpoint, 2.0, 64, WORKING)
    first = closed_loop(endpoint, 4.0, 64, WORKING)
    with Steady(endpoint, 5 * first.statuses[200] / first.seconds, WORKING, connections=512) as load:
        time.sleep(8.0)
    seen, second = load.seen, closed_loop(endpoint, 4.0, 64, WORKING)
    able = (per_core(first) + per_core(second)) / 2
    print(
        f"a core answers {able:.0f}/s, and {per_core(seen):.0f}/s when {load.rate:.0f}/s are asked of {CORES}: "
        f"{dict(seen.statuses)}, p50 {seen.percentile(0.5):.0f} ms, p99 {seen.percentile(0.99):.0f} ms; without what "
        f"making the load took, {first.processor_seconds:.1f}, {seen.processor_seconds:.1f}, "
        f"{second.processor_seconds:.1f} s; {[one.statuses[200] / one.seconds for one in (first, seen, second)]}"
    )
    assert (set(seen.statuses), seen.broken, seen.not_problems) == ({200, 429}, Counter(), [])
    assert per_core(seen) > GOODPUT * able
    assert seen.percentile(0.99) < 1000
    assert endpoint.predict().status_code == 200
    assert turned_away(endpoint) == seen.statuses[429], "what no replica hears of is in the metrics all the same"


def turned_away(endpoint: Endpoint) -> float:
    """Predictions that HAProxy refused for overload since the endpoint started."""
    told = text_string_to_metric_families(httpx.get(endpoint.settings.endpoint + METRICS_PATH).text)
    denied = next(family for family in told if family.name == "haproxy_backend_requests_denied")
    return sum(sample.value for sample in denied.samples if sample.labels["proxy"] == "http-mlops-assets")


def arms_of(endpoint: Endpoint) -> dict[str, str | None]:
    """The arm that answers each of twenty customers; None where none does."""
    return {customer: endpoint.predict(customer).json().get("arm") for customer in map(str, range(20))}


def test_everything_is_killed_at_once_and_comes_back_as_it_was(endpoint: Endpoint, rate: float) -> None:
    with Steady(endpoint, rate) as load:
        version = begin_canary(endpoint, "query")
        before = wait_until(lambda: heaviest(endpoint), 120)
        salt = endpoint.rollout()["salt"]
        arms = {c: "canary" if in_canary(c, salt, WEIGHTS[-1]) else "stable" for c in arms_of(endpoint)}
        endpoint.kill()
        begun = time.monotonic()
        endpoint.start()
        wait_until(lambda: standing(endpoint) == before, BACK_SECONDS)
        wait_until(lambda: arms_of(endpoint) == arms, BACK_SECONDS)
        back, answered = time.monotonic() - begun, len(load.seen.acknowledged)
        wait_until(lambda: len(load.seen.acknowledged) > answered + 2 * rate, 60)
    print(f"back after {back:.1f} s, {load.seen.broken.total()} requests failed meanwhile")
    logged_once(endpoint, load.seen)
    abort(endpoint, version)
