"""A registry on a server of its own that hangs or dies for a while: nobody who asks for a prediction notices."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from mlops_assets.ops.processes import environment, services
from mlops_assets.ops.supervisor import answers
from mlops_assets.ports import free_port
from mlops_assets.release.state import Phase
from mlops_assets.resources.registry import prepare
from tests.serving.factories import MODEL, write_artefact
from tests.serving.steady import Steady, capacity
from tests.serving.world import Endpoint, settings_in, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(600)]
AWAY_SECONDS = 60.0
SHARE = 0.7  # of what the endpoint can do
logits = itertools.count(4.1, 0.1)


class TrackingServer:
    """The platform's MLflow over a home's store, with its workers in one process group.

    Attributes:
        store: publishes past the server, which takes no model from a local folder.
    """

    def __init__(self, home: Path) -> None:
        own = settings_in(home, mlflow_port=free_port())
        prepare(own)
        self.url = own.mlflow_url
        self.store = Endpoint(own)
        self._environment = environment(own)
        self._service = next(service for service in services(own) if service.name == "mlflow")
        self._log = home / "mlflow.log"
        self.start()

    def start(self) -> None:
        command, log = self._service.command, self._log.open("ab")
        self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log, start_new_session=True)
        wait_until(lambda: answers(self._service.ready_url), 90)

    def send(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self._process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    server = TrackingServer(tmp_path_factory.mktemp("tracking"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def endpoint(server: TrackingServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    settings = settings_in(
        tmp_path_factory.mktemp("registry_away"),
        mlflow_tracking_uri=server.url,
        ingress_replicas=2,
        replay_clock=False,
    )
    endpoint = Endpoint(settings)
    server.store.publish(partial(write_artefact, label="refund"), "production")
    with endpoint.running():
        wait_until(lambda: endpoint.health()["ready"], 60)  # a registry that answers late is followed when it does
        yield endpoint


@contextmanager
def hanging(server: TrackingServer) -> Iterator[None]:
    server.send(signal.SIGSTOP)
    yield
    server.send(signal.SIGCONT)


@contextmanager
def dead(server: TrackingServer) -> Iterator[None]:
    server.kill()
    yield
    server.start()


def begin_canary(endpoint: Endpoint, server: TrackingServer) -> int:
    artefact = partial(write_artefact, label="other", logit=next(logits))
    version = server.store.publish(artefact, "canary").version
    wait_until(lambda: endpoint.rollout().get("version") == version, 60)
    wait_until(lambda: Phase(endpoint.rollout()["phase"]).is_judged, 60)  # under load it is fit within seconds
    return version


def abort(endpoint: Endpoint, version: int) -> None:
    stop = {"version": version, "reason": "enough"}
    assert endpoint.admin(f"/models/{MODEL}/rollout/abort", stop).is_success


@pytest.mark.parametrize("fault", [hanging, dead])
def test_nobody_is_failed_a_canary_can_be_stopped_and_the_registry_is_followed_again(
    endpoint: Endpoint, server: TrackingServer, fault: Callable[[TrackingServer], AbstractContextManager[None]]
) -> None:
    capacity(endpoint, 1.0)
    with Steady(endpoint, SHARE * capacity(endpoint)) as load:
        stopped = begin_canary(endpoint, server)
        with fault(server):
            begun = time.monotonic()
            abort(endpoint, stopped)
            wait_until(lambda: not endpoint.health()["registry"]["ok"], 60)
            time.sleep(max(0.0, begun + AWAY_SECONDS - time.monotonic()))  # the fault itself lasts so long
            assert endpoint.rollout()["registry_told"] is False
        wait_until(lambda: endpoint.rollout()["registry_told"], 120)
        wait_until(lambda: endpoint.health()["registry"]["ok"], 60)
        followed = begin_canary(endpoint, server)
        abort(endpoint, followed)
        wait_until(lambda: endpoint.rollout()["registry_told"], 120)
    assert server.store.registry.get(MODEL, stopped).tags["rollout"] == "failed"
    assert load.seen.failures == {}
    print(f"{len(load.seen.acknowledged)} answered, p99 {load.seen.percentile(0.99):.0f} ms")
