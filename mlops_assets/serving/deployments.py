"""The Ray Serve application: ingress replicas, one guard, and a canary process of its own.

Only wiring: which object runs in which process and how they call each other. Ray is imported here, in `local_ray`
and in `worker` alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from logging.handlers import WatchedFileHandler
from math import ceil
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.util import get_node_ip_address

from mlops_assets.declarations import find_specs
from mlops_assets.release.rollout import Approval
from mlops_assets.serving import shortcut
from mlops_assets.serving.batcher import check_networks
from mlops_assets.serving.canary_host import CanaryHost, Held
from mlops_assets.serving.endpoint import EndpointService
from mlops_assets.serving.express_lane import ExpressLane
from mlops_assets.serving.guard import Guard, Rejected
from mlops_assets.serving.http import build_app
from mlops_assets.serving.line import Address, Line, Listener
from mlops_assets.serving.lookup import FeatureLookup, open_feast
from mlops_assets.serving.machine import SAMPLE_SECONDS, MachineSampler
from mlops_assets.serving.metrics import Figures
from mlops_assets.serving.routing import RoutingTable, Tally, VersionRef
from mlops_assets.serving.schemas import RolloutAnswer
from mlops_assets.serving.worker import import_mlflow
from mlops_assets.settings import Settings
from mlops_assets.spec import ModelSpec

log = logging.getLogger("mlops_assets.serving")

FOLLOW_SECONDS = 1.0
BEAT_SECONDS = 0.5
# A first look at the registry takes so long at most before the guard goes on with what it remembers.
FIRST_LOOK_SECONDS = 15.0
# A canary's process that is not found so fast is not there; less than a question's deadline, which counts as a failure.
FIND_CANARY_SECONDS = 0.5
# Loading and warming a version takes seconds; a process that says nothing for longer is not there.
HOLD_SECONDS = 60.0


class Background:
    """Loops that live as long as their replica; a loop that ends is a fault, and `check` says so."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self, loop: Callable[[], Any]) -> None:
        """Run one endless coroutine function."""
        self._tasks.append(asyncio.create_task(loop()))

    def check(self) -> None:
        """Raise when a loop has ended: Serve then starts the replica anew."""
        for task in self._tasks:
            if task.done():
                raise RuntimeError(f"a background loop ended: {task.exception() or 'without an error'}")


# A replica that is to end looks so often whether all that it was asked is answered, for so long at most.
LAST_ANSWERS = {"graceful_shutdown_wait_loop_s": 0.1, "graceful_shutdown_timeout_s": 10}


@serve.deployment(**LAST_ANSWERS, max_ongoing_requests=64, health_check_period_s=1, ray_actor_options={"num_cpus": 0.1})
class CanaryProcess:
    """Hosts `CanaryHost` and listens for what ingress replicas and guard ask it."""

    async def __init__(self) -> None:  # type: ignore[misc]
        settings = Settings()
        _log_to(settings, "canary")
        self._host = CanaryHost(find_specs(settings.models_dir))
        self._listener = Listener(answer=self._host.answer, hold=self._hold)
        self._address = await self._listener.open(_own_address(settings))

    async def address(self) -> Address:
        """Where it listens."""
        return self._address

    def check_health(self) -> None:
        """Called by Serve."""
        self._host.check()

    async def _hold(self, wanted: dict[str, VersionRef]) -> Held:
        return await asyncio.to_thread(self._host.hold, wanted)


@serve.deployment(
    **LAST_ANSWERS, max_ongoing_requests=256, health_check_period_s=2, ray_actor_options={"num_cpus": 0.1}
)
class GuardProcess:
    """Hosts `Guard` and its loops: the registry, the canary's signs of life, and the machine's load."""

    async def __init__(self, canary: DeploymentHandle) -> None:  # type: ignore[misc]
        settings = Settings()
        _log_to(settings, "guard")
        await asyncio.to_thread(import_mlflow)
        self._guard = Guard(settings, find_specs(settings.models_dir))
        self._canary = Line(canary.address.remote)
        self._machine = MachineSampler(settings.home)
        self._background = Background()
        first = asyncio.create_task(asyncio.to_thread(self._guard.follow_registry))
        await asyncio.wait([first], timeout=FIRST_LOOK_SECONDS)
        self._background.start(self._follow_registry)
        self._background.start(self._watch_canary)
        self._background.start(self._sample_machine)
        self._listener = Listener(exchange=self._exchange)
        self._address = await self._listener.open(_own_address(settings))

    async def address(self) -> Address:
        """Where it listens for what is asked all the time: exchanges."""
        return self._address

    async def rollout(self, model: str) -> dict[str, Any]:
        """What is known of the newest rollout."""
        return await asyncio.to_thread(self._guard.rollout, model)

    async def metrics(self) -> str:
        """What Prometheus reads."""
        return await asyncio.to_thread(self._guard.metrics)

    async def seal(self, model: str, version: int, approval: Approval | None) -> RolloutAnswer | Rejected:
        """First half of a promotion."""
        return await asyncio.to_thread(self._guard.seal, model, version, approval)

    async def abort(self, model: str, version: int, reason: str) -> RolloutAnswer | Rejected:
        """Stop a rollout by hand."""
        return await asyncio.to_thread(self._guard.abort, model, version, reason)

    def check_health(self) -> None:
        """Called by Serve."""
        self._background.check()

    async def _exchange(self, replica: str, tallies: dict[str, Tally], figures: dict[str, Figures]) -> RoutingTable:
        return await asyncio.to_thread(self._guard.exchange, replica, tallies, figures)

    async def _follow_registry(self) -> None:
        while True:
            await asyncio.to_thread(self._guard.follow_registry)
            await asyncio.sleep(FOLLOW_SECONDS)

    async def _watch_canary(self) -> None:
        while True:
            wanted = self._guard.wanted()
            try:
                held = await asyncio.wait_for(self._canary.ask("hold", wanted), HOLD_SECONDS)
            except Exception as error:  # noqa: BLE001 - its process died or is being started; Serve sees to that
                log.warning("the canary process is absent: %s", type(error).__name__)
                await asyncio.to_thread(self._guard.canary_absent)
            else:
                await asyncio.to_thread(self._guard.canary_holds, wanted, held)
            await asyncio.sleep(BEAT_SECONDS)

    async def _sample_machine(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            await asyncio.to_thread(self._machine.sample)


class GuardHandle:
    """The guard as `EndpointService` calls it."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._line = Line(handle.address.remote)

    async def exchange(
        self, replica: str, tallies: Mapping[str, Tally], figures: Mapping[str, Figures]
    ) -> RoutingTable:
        """Counts in, routes out."""
        table: RoutingTable = await self._line.ask("exchange", replica, dict(tallies), dict(figures))
        return table

    async def rollout(self, model: str) -> dict[str, Any]:
        """What is known of the newest rollout."""
        return await self._handle.rollout.remote(model)

    async def metrics(self) -> str:
        """What Prometheus reads."""
        return await self._handle.metrics.remote()

    async def seal(self, model: str, version: int, approval: Approval | None) -> RolloutAnswer | Rejected:
        """First half of a promotion."""
        return await self._handle.seal.remote(model, version, approval)

    async def abort(self, model: str, version: int, reason: str) -> RolloutAnswer | Rejected:
        """Stop a rollout by hand."""
        return await self._handle.abort.remote(model, version, reason)


@serve.deployment(
    **LAST_ANSWERS, max_ongoing_requests=1024, health_check_period_s=2, ray_actor_options={"num_cpus": 0.2}
)
@serve.ingress()
class Ingress:
    """Hosts `EndpointService` behind its FastAPI application."""

    async def __init__(self, guard: DeploymentHandle, canary: DeploymentHandle) -> None:  # type: ignore[misc]
        settings = Settings()
        _log_to(settings, "ingress")

        def open_lookup(spec: ModelSpec) -> FeatureLookup:
            return FeatureLookup(lambda: open_feast(settings), spec.features.deadline_ms / 1000)

        specs = find_specs(settings.models_dir)
        ask_canary = partial(Line(canary.address.remote, FIND_CANARY_SECONDS).ask, "answer")
        self._service = EndpointService(settings, specs, GuardHandle(guard), ask_canary, open_lookup)
        self._background = Background()
        await self._service.start()
        self._background.start(self._service.run)

    def __serve_build_asgi_app__(self) -> Any:
        """Called by Serve after the constructor."""
        application = build_app(self._service)
        shortcut.open_for(ExpressLane(application))
        return application

    def check_health(self) -> None:
        """Called by Serve."""
        self._background.check()
        check_networks()


def application(settings: Settings) -> serve.Application:
    """The three deployments, bound to each other; the ingress replicas are spread evenly over Ray's nodes."""
    canary = CanaryProcess.bind()  # type: ignore[attr-defined]
    guard = GuardProcess.bind(canary)  # type: ignore[attr-defined]
    nodes = sum(node["Alive"] for node in ray.nodes())
    most = ceil(settings.ingress_replicas / nodes) if nodes > 1 else None
    ingress = Ingress.options(  # type: ignore[attr-defined]
        num_replicas=settings.ingress_replicas, max_replicas_per_node=most
    )
    return ingress.bind(guard, canary)


def _own_address(settings: Settings) -> str:
    """Where other processes of this Ray reach this one: on a Ray of one machine nobody else may."""
    return get_node_ip_address() if settings.ray_address else "127.0.0.1"


def _log_to(settings: Settings, role: str) -> None:
    """Write our own log lines to ``logs/serving.log``: Serve would buffer them, and lose them with the process."""
    logger = logging.getLogger("mlops_assets")
    if logger.handlers:
        return
    path = settings.home / "logs" / "serving.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = WatchedFileHandler(path)
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {role}[%(process)d] %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
