"""The endpoint as it runs: real Ray, real registry, real HTTP, and processes that are killed under it."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlops_assets.serving.haproxy import IN_FLIGHT_PER_REPLICA, METRICS_PATH
from tests.serving.factories import MODEL, write_artefact, write_broken_artefact, write_slow_artefact
from tests.serving.load import Load
from tests.serving.world import Endpoint, new_endpoint, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NOON = "2026-03-01T12:00:00Z"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Endpoint, httpx.Response]]:
    """Version 1 ("refund") in production, and the first reply to one who asked from the beginning."""
    endpoint = new_endpoint(tmp_path_factory.mktemp("endpoint"))
    endpoint.publish(lambda folder: write_artefact(folder, "refund"), "production")
    with ThreadPoolExecutor(1) as caller:
        first = caller.submit(wait_until, lambda: reply_if_somebody_listens(endpoint), 240)
        with endpoint.running():
            endpoint.admin("/clock", {"now": NOON})
            yield endpoint, first.result()


@pytest.fixture
def endpoint(started: tuple[Endpoint, httpx.Response]) -> Endpoint:
    return started[0]


def reply_if_somebody_listens(endpoint: Endpoint) -> httpx.Response | None:
    try:
        return endpoint.predict("early")
    except httpx.TransportError:
        return None


def test_before_it_is_ready_a_caller_is_told_to_ask_again(started: tuple[Endpoint, httpx.Response]) -> None:
    _, first = started
    assert (first.status_code, first.headers["content-type"]) == (503, "application/problem+json")
    assert int(first.headers["retry-after"]) > 0


def phase(endpoint: Endpoint) -> str:
    return str(endpoint.rollout().get("phase"))


def tags(endpoint: Endpoint, version: int) -> dict[str, str]:
    return dict(endpoint.registry.get(MODEL, version).tags)


def begin_canary(endpoint: Endpoint, label: str) -> int:
    version = endpoint.publish(lambda folder: write_artefact(folder, label), "canary").version
    wait_until(lambda: (endpoint.health()["models"][MODEL]["canary"] or {}).get("version") == version, 60)
    return version


def end_canary(endpoint: Endpoint, version: int) -> None:
    endpoint.admin(f"/models/{MODEL}/rollout/abort", {"version": version, "reason": "end of test"})
    wait_until(lambda: endpoint.rollout()["registry_told"], 60)


def test_it_serves_what_the_registry_says(endpoint: Endpoint) -> None:
    reply = endpoint.predict("C-1")
    assert reply.status_code == 200, reply.text
    assert (reply.json()["label"], reply.json()["model_version"]) == ("refund", 1)
    assert reply.json()["features_source"] == "default"  # nothing was materialised here
    health = endpoint.health()
    assert health["models"][MODEL]["stable"]["version"] == 1
    assert health["registry"]["ok"]
    assert health["guard"]["ok"]


def test_no_process_of_ray_runs_for_nothing(endpoint: Endpoint) -> None:
    assert endpoint.pids("gcs_server")
    idle = ("ray::IDLE", "/log_monitor.py", "/monitor.py", "/dashboard.py")
    assert [name for name in idle if endpoint.pids(name)] == []


@pytest.mark.parametrize(
    ("content", "status"), [(b"no json", 400), (json.dumps({"text": "x" * 10_000}).encode(), 422), (b"x" * 70_000, 413)]
)
def test_bad_requests_are_problems_over_the_wire_too(endpoint: Endpoint, content: bytes, status: int) -> None:
    reply = endpoint.client.post("/predict", content=content, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json")


def test_a_bulk_of_labels_turns_no_prediction_away_and_too_many_predictions_do(endpoint: Endpoint) -> None:
    replica = psutil.Process(endpoint.health()["pid"])
    many = IN_FLIGHT_PER_REPLICA + 10
    label, message = {"prediction_id": "unknown", "label": "refund"}, {"text": "where is my parcel?"}
    client = httpx.Client(base_url=endpoint.settings.endpoint, timeout=30, limits=httpx.Limits(max_connections=None))
    with client, ThreadPoolExecutor(2 * many) as callers:
        replica.suspend()  # so that all of it is under way at once
        labels = [callers.submit(client.post, "/feedback", json=label) for _ in range(many)]
        wait_until(lambda: under_way(client) >= many, every=0.02)
        predictions = [callers.submit(client.post, "/predict", json=message) for _ in range(many)]
        wait_until(lambda: sum(reply.done() for reply in predictions) >= 10, every=0.02)
        replica.resume()
        assert Counter(reply.result().status_code for reply in labels) == {202: many}
        assert Counter(reply.result().status_code for reply in predictions) == {200: IN_FLIGHT_PER_REPLICA, 429: 10}


def under_way(client: httpx.Client) -> float:
    """Requests that HAProxy has passed on and that are not answered."""
    told = text_string_to_metric_families(client.get(METRICS_PATH).text)
    sessions = next(family for family in told if family.name == "haproxy_backend_current_sessions")
    return next(sample.value for sample in sessions.samples if sample.labels["proxy"] == "http-mlops-assets")


def test_what_was_answered_before_a_kill_is_in_the_log(endpoint: Endpoint) -> None:
    with Load(endpoint, gap_seconds=0.0) as load:
        wait_until(lambda: len(load.acknowledged) > 50)
        os.kill(endpoint.health()["pid"], signal.SIGKILL)
        dead = len(load.acknowledged)
        wait_until(lambda: len(load.acknowledged) > dead + 20, 120)
    assert set(load.versions) == {1}
    in_log = Counter(record["prediction_id"] for record in endpoint.predictions())
    assert all(in_log[prediction_id] == 1 for prediction_id in load.acknowledged)


def test_a_failing_canary_is_rolled_back_without_a_failed_request(endpoint: Endpoint) -> None:
    with Load(endpoint) as load:
        version = endpoint.publish(write_broken_artefact, "canary").version
        wait_until(lambda: endpoint.rollout().get("version") == version and phase(endpoint) == "failed", 90)
        wait_until(lambda: endpoint.rollout()["registry_told"], 60)
    assert (set(load.statuses), load.broken) == ({200}, [])
    assert set(load.versions) == {1}
    assert (tags(endpoint, version)["rollout"], tags(endpoint, version)["archived"]) == ("failed", "true")
    assert endpoint.registry.by_alias(MODEL, "canary") is None


def test_a_canary_process_that_is_killed_comes_back_and_nobody_notices(endpoint: Endpoint) -> None:
    with Load(endpoint) as load:
        version = begin_canary(endpoint, "query")
        wait_until(lambda: load.arms["canary"] > 5)
        for pid in endpoint.pids("CanaryProcess"):
            os.kill(pid, signal.SIGKILL)
        before = load.arms["canary"]
        wait_until(lambda: load.arms["canary"] > before + 10 or phase(endpoint) == "failed", 120)
    assert (set(load.statuses), load.broken) == ({200}, [])
    assert set(load.versions) <= {1, version}
    end_canary(endpoint, version)


def test_a_guard_that_is_killed_goes_on_where_it_was(endpoint: Endpoint) -> None:
    with Load(endpoint) as load:
        version = begin_canary(endpoint, "farewell")
        wait_until(lambda: endpoint.rollout()["counts"]["canary"]["requests"] > 5)
        before = endpoint.rollout()
        for pid in endpoint.pids("GuardProcess"):
            os.kill(pid, signal.SIGKILL)
        counted = before["counts"]["canary"]["requests"]
        wait_until(lambda: endpoint.rollout().get("counts", before["counts"])["canary"]["requests"] > counted, 120)
    assert endpoint.rollout()["rollout_id"] == before["rollout_id"]
    assert (set(load.statuses), load.broken) == ({200}, [])
    assert set(load.versions) <= {1, version}
    end_canary(endpoint, version)


def arms_of(endpoint: Endpoint) -> dict[str, str]:
    """The arm that answers each of twenty customers."""
    return {customer: endpoint.predict(customer).json()["arm"] for customer in map(str, range(20))}


def test_a_fit_canary_is_promoted_and_a_restart_of_everything_keeps_it(endpoint: Endpoint) -> None:
    with Load(endpoint, gap_seconds=0.0, threads=2) as load:
        version = begin_canary(endpoint, "other")
        wait_until(lambda: phase(endpoint) == "promoting", 150)
        sealed = endpoint.admin(f"/models/{MODEL}/rollout/seal", {"version": version})
        assert sealed.json()["answer"] == "sealed"
        endpoint.registry.move_alias(MODEL, "production", version, expected=1, evidence_name="rollout")
        wait_until(lambda: endpoint.health()["models"][MODEL]["stable"]["version"] == version, 60)
        wait_until(lambda: endpoint.rollout()["registry_told"], 60)
    assert (set(load.statuses), load.broken) == ({200}, [])
    assert tags(endpoint, version)["rollout"] == "succeeded"

    trial = begin_canary(endpoint, "greeting")
    wait_until(lambda: "canary" in arms_of(endpoint).values(), 60)
    arms = arms_of(endpoint)
    rollout_id = endpoint.rollout()["rollout_id"]
    assert endpoint.stop() == []
    endpoint.start()
    wait_until(lambda: endpoint.health()["models"][MODEL]["canary"], 60)
    assert endpoint.rollout()["rollout_id"] == rollout_id
    wait_until(lambda: arms_of(endpoint) == arms, 60)  # a canary that is not warm yet is stood in for by the stable arm
    assert endpoint.predict("0").json()["model_version"] in {version, trial}
    end_canary(endpoint, trial)


def test_an_endpoint_whose_own_process_is_killed_starts_again_on_its_port(endpoint: Endpoint) -> None:
    version = endpoint.health()["models"][MODEL]["stable"]["version"]
    process = endpoint.process
    assert process is not None
    process.kill()
    process.wait()
    endpoint.start()  # what the supervisor does; the proxy of the dead one still listens on the port
    assert endpoint.health()["models"][MODEL]["stable"]["version"] == version
    assert endpoint.predict("0").status_code == 200


def test_when_rays_core_dies_all_of_it_ends_and_leaves_nothing(endpoint: Endpoint) -> None:
    process = endpoint.process
    assert process is not None
    started = psutil.Process(process.pid).children(recursive=True)
    for pid in endpoint.pids("raylet/raylet"):
        os.kill(pid, signal.SIGKILL)
    assert process.wait(60) == 1
    assert psutil.wait_procs(started, 5)[1] == []
    endpoint.start()  # what the supervisor does


def test_who_is_being_answered_when_the_endpoint_is_stopped_is_answered(endpoint: Endpoint) -> None:
    before = endpoint.health()["models"][MODEL]["stable"]["version"]
    slow = endpoint.publish(lambda folder: write_slow_artefact(folder, "farewell"), "candidate").version
    endpoint.registry.move_alias(MODEL, "production", slow, expected=before, evidence_name="gate")
    wait_until(lambda: endpoint.predict("0").json()["model_version"] == slow, 60)
    with ThreadPoolExecutor(8) as callers:
        asked = [callers.submit(endpoint.predict, f"C-{number}") for number in range(8)]
        wait_until(lambda: any(reply.done() for reply in asked), every=0.01)  # the others wait in the queue
        latecomers = callers.submit(statuses_until_nobody_listens, endpoint)
        assert endpoint.stop() == []
        assert [reply.result().status_code for reply in asked] == [200] * 8
    assert set(latecomers.result()) <= {200, 503}


def statuses_until_nobody_listens(endpoint: Endpoint) -> Counter[int]:
    statuses: Counter[int] = Counter()
    while True:
        try:
            statuses[endpoint.predict("late").status_code] += 1
        except httpx.TransportError:
            return statuses


def test_a_port_that_somebody_takes_during_the_start_ends_it_with_the_reason(tmp_path: Path) -> None:
    endpoint = new_endpoint(tmp_path)
    endpoint.publish(lambda folder: write_artefact(folder, "refund"), "production")
    started = endpoint.launch()
    wait_until(lambda: endpoint.pids("gcs_server"))  # so the port was found free
    with socket.create_server((endpoint.settings.host, endpoint.settings.serve_port)):
        assert started.wait(240) == 1
    said = endpoint.log.read_text()
    assert "cannot bind socket (Address already in use)" in said
    assert "ready http" not in said
