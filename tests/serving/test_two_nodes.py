"""One ingress replica on each of two Ray nodes: one split, one count, and one weight within a second."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial

import httpx
import pytest

from mlops_assets.release.assignment import in_canary
from tests.serving.factories import MODEL, write_artefact
from tests.serving.nodes import Nodes, two_nodes
from tests.serving.steady import Steady
from tests.serving.world import POLICY, Endpoint, new_endpoint, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(600)]
WEIGHTS = (0.3, 0.6)
CUSTOMERS = [f"C-{number}" for number in range(40)]
RATE = 100.0
HEARD_SECONDS = 1.0


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with two_nodes() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def endpoint(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    policy = {**POLICY, "weights": list(WEIGHTS), "minutes": 0.02, "max_minutes": 10.0}
    home = tmp_path_factory.mktemp("two_nodes")
    endpoint = new_endpoint(home, policy=policy, ray_address=nodes.address, ingress_replicas=2, replay_clock=False)
    endpoint.publish(partial(write_artefact, label="refund"), "production")
    with endpoint.running():
        yield endpoint


@pytest.fixture(scope="module")
def replicas(endpoint: Endpoint, nodes: Nodes) -> tuple[httpx.Client, httpx.Client]:
    """A way to each of the two ingress replicas itself, past every HAProxy."""
    wait_until(lambda: endpoint.predict().is_success, 60)
    one, other = (httpx.Client(base_url=node.ingress(), timeout=30) for node in nodes.both)
    return one, other


@pytest.fixture(scope="module")
def canary(endpoint: Endpoint, replicas: tuple[httpx.Client, httpx.Client]) -> int:
    """A canary that both replicas send their share to."""
    version = endpoint.publish(partial(write_artefact, label="other"), "canary").version
    wait_until(lambda: all("canary" in arms(replica).values() for replica in replicas), 60)
    return version


def arms(replica: httpx.Client) -> dict[str, str]:
    """Who answers each customer that comes to this replica."""
    found = {}
    for customer in CUSTOMERS:
        reply = replica.post("/predict", json={"text": "where is my parcel?", "customer_id": customer})
        found[customer] = str(reply.raise_for_status().json()["arm"])
    return found


def counted(endpoint: Endpoint) -> int:
    """Requests that the guard has heard of."""
    counts = endpoint.rollout()["counts"]
    return int(counts["stable"]["requests"] + counts["canary"]["requests"])


def logs(endpoint: Endpoint) -> dict[str, int]:
    """How many requests of the rollout each replica has logged."""
    rollout_id = endpoint.rollout()["rollout_id"]
    return {
        segment.name: sum(json.loads(line)["rollout_id"] == rollout_id for line in segment.read_text().splitlines())
        for segment in endpoint.settings.model_home(MODEL).predictions.glob("*.ndjson")
    }


def weight(replica: httpx.Client) -> float:
    canary = replica.get("/health").json()["models"][MODEL]["canary"]
    return float(canary["weight"]) if canary else 0.0


def heard(replica: httpx.Client, of: float) -> float:
    """When this replica splits by that weight."""
    wait_until(lambda: weight(replica) == of, 120, every=0.01)
    return time.time()


def test_each_node_has_a_replica_and_a_proxy_that_reaches_both(
    endpoint: Endpoint, nodes: Nodes, replicas: tuple[httpx.Client, httpx.Client]
) -> None:
    names = {replica.get("/health").json()["replica"] for replica in replicas}
    assert len(names) == 2
    for port in (endpoint.settings.serve_port, nodes.worker_port):
        wait_until(partial(reached, f"http://{endpoint.settings.host}:{port}/health", names), 60)


def reached(health: str, names: set[str]) -> bool:
    """Whether the proxy there passes requests on to all of these replicas, and to no other."""
    try:
        return {httpx.get(health).raise_for_status().json()["replica"] for _ in range(8)} == names
    except httpx.HTTPError:
        return False


@pytest.mark.usefixtures("canary")
def test_a_customer_meets_the_same_arm_on_both_nodes(
    endpoint: Endpoint, replicas: tuple[httpx.Client, httpx.Client]
) -> None:
    rollout = endpoint.rollout()
    assert rollout["weight"] == WEIGHTS[0]
    split = {c: "canary" if in_canary(c, rollout["salt"], WEIGHTS[0]) else "stable" for c in CUSTOMERS}
    assert [arms(replica) for replica in replicas] == [split, split]


@pytest.mark.usefixtures("canary")
def test_the_guard_counts_what_came_to_either_node(
    endpoint: Endpoint, replicas: tuple[httpx.Client, httpx.Client]
) -> None:
    before = logs(endpoint)
    for replica in replicas:
        arms(replica)
    grown = [log for log, counted in logs(endpoint).items() if counted == before.get(log, 0) + len(CUSTOMERS)]
    assert len(grown) == 2
    wait_until(lambda: counted(endpoint) == sum(logs(endpoint).values()))


def test_a_new_weight_reaches_both_nodes_within_a_second_and_nobody_is_failed(
    endpoint: Endpoint, replicas: tuple[httpx.Client, httpx.Client], canary: int
) -> None:
    with Steady(endpoint, RATE) as load, ThreadPoolExecutor(2) as pool:
        times = list(pool.map(partial(heard, of=WEIGHTS[1]), replicas))
        raised = datetime.fromisoformat(endpoint.rollout()["history"][0]["at"]).timestamp()
        stopped = [pool.submit(heard, replica, 0.0) for replica in replicas]
        asked = time.time()
        assert endpoint.admin(f"/models/{MODEL}/rollout/abort", {"version": canary, "reason": "enough"}).is_success
        ended = [future.result() for future in stopped]
    late = [at - raised for at in times] + [at - asked for at in ended]
    print(f"after {', '.join(f'{seconds:.2f} s' for seconds in late)}")
    assert max(late) < HEARD_SECONDS
    assert load.seen.failures == {}


def test_the_endpoint_outlives_the_process_that_started_it_and_is_taken_over_by_the_next(
    endpoint: Endpoint, nodes: Nodes
) -> None:
    before = {process.pid for node in nodes.both for process in node.replicas("Ingress")}
    with Steady(endpoint, RATE) as load:
        wait_until(lambda: len(load.seen.acknowledged) > RATE)
        endpoint.kill()
        endpoint.start()
        wait_until(lambda: not before.intersection(p.pid for node in nodes.both for p in node.replicas("Ingress")), 60)
    assert load.seen.failures == {}
