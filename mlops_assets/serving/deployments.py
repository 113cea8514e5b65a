"""The Ray Serve application: ingress replicas, one guard, and a canary process of its own.

Only wiring: which object runs in which process and how they call each other. Ray is imported here and
in `local_ray` alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from logging.handlers import WatchedFileHandler
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from mlops_assets.release.rollout import Approval
from mlops_assets.serving.canary_host import CanaryHost, Held
from mlops_assets.serving.endpoint import EndpointService
from mlops_assets.serving.guard import Guard, Rejected
from mlops_assets.serving.http import build_app
from mlops_assets.serving.lookup import FeatureLookup, open_feast
from mlops_assets.serving.machine import SAMPLE_SECONDS, MachineSampler
from mlops_assets.serving.metrics import Figures
from mlops_assets.serving.routing import Absent, Answer, Refusal, RoutingTable, Tally, VersionRef
from mlops_assets.serving.schemas import RolloutAnswer
from mlops_assets.settings import Settings
from mlops_assets.spec import ModelSpec, find_specs

log = logging.getLogger("mlops_assets.serving")

FOLLOW_SECONDS = 1.0
BEAT_SECONDS = 0.5
# A first look at the registry takes so long at most before the guard goes on with what it remembers.
FIRST_LOOK_SECONDS = 15.0
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


@serve.deployment(max_ongoing_requests=64, health_check_period_s=1, ray_actor_options={"num_cpus": 0.1})
class CanaryProcess:
    """Hosts `CanaryHost`."""

    def __init__(self) -> None:
        _log_to(Settings(), "canary")
        self._host = CanaryHost()

    async def hold(self, wanted: dict[str, VersionRef]) -> Held:
        """Hold these versions and no others."""
        return await asyncio.to_thread(self._host.hold, wanted)

    async def predict(
        self, model: str, ref: VersionRef, text: str, features: dict[str, float | None]
    ) -> Answer | Refusal | Absent:
        """Answer one message with the version under trial."""
        return await self._host.answer(model, ref, text, features)


@serve.deployment(max_ongoing_requests=256, health_check_period_s=2, ray_actor_options={"num_cpus": 0.1})
class GuardProcess:
    """Hosts `Guard` and its loops: the registry, the canary's signs of life, and the machine's load."""

    async def __init__(self, canary: DeploymentHandle) -> None:  # type: ignore[misc]
        settings = Settings()
        _log_to(settings, "guard")
        self._guard = Guard(settings, find_specs(settings.models_dir))
        self._canary = canary
        self._machine = MachineSampler(settings.home)
        self._background = Background()
        first = asyncio.create_task(asyncio.to_thread(self._guard.follow_registry))
        await asyncio.wait([first], timeout=FIRST_LOOK_SECONDS)
        self._background.start(self._follow_registry)
        self._background.start(self._watch_canary)
        self._background.start(self._sample_machine)

    async def exchange(self, replica: str, tallies: dict[str, Tally]) -> RoutingTable:
        """Counts in, routes out."""
        return await asyncio.to_thread(self._guard.exchange, replica, tallies)

    async def rollout(self, model: str) -> dict[str, Any]:
        """What is known of the newest rollout."""
        return await asyncio.to_thread(self._guard.rollout, model)

    async def report(self, replica: str, figures: dict[str, Figures]) -> None:
        """A replica's counts for Prometheus."""
        self._guard.report(replica, figures)

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

    async def _follow_registry(self) -> None:
        while True:
            await asyncio.to_thread(self._guard.follow_registry)
            await asyncio.sleep(FOLLOW_SECONDS)

    async def _watch_canary(self) -> None:
        while True:
            wanted = self._guard.wanted()
            try:
                held = await asyncio.wait_for(self._canary.hold.remote(wanted), HOLD_SECONDS)
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

    async def exchange(self, replica: str, tallies: Mapping[str, Tally]) -> RoutingTable:
        """Counts in, routes out."""
        return await self._handle.exchange.remote(replica, dict(tallies))

    async def rollout(self, model: str) -> dict[str, Any]:
        """What is known of the newest rollout."""
        return await self._handle.rollout.remote(model)

    async def report(self, replica: str, figures: Mapping[str, Figures]) -> None:
        """A replica's counts for Prometheus."""
        await self._handle.report.remote(replica, dict(figures))

    async def metrics(self) -> str:
        """What Prometheus reads."""
        return await self._handle.metrics.remote()

    async def seal(self, model: str, version: int, approval: Approval | None) -> RolloutAnswer | Rejected:
        """First half of a promotion."""
        return await self._handle.seal.remote(model, version, approval)

    async def abort(self, model: str, version: int, reason: str) -> RolloutAnswer | Rejected:
        """Stop a rollout by hand."""
        return await self._handle.abort.remote(model, version, reason)


@serve.deployment(max_ongoing_requests=1024, health_check_period_s=2, ray_actor_options={"num_cpus": 0.2})
@serve.ingress()
class Ingress:
    """Hosts `EndpointService` behind its FastAPI application."""

    async def __init__(self, guard: DeploymentHandle, canary: DeploymentHandle) -> None:  # type: ignore[misc]
        settings = Settings()
        _log_to(settings, "ingress")

        async def ask_canary(
            model: str, ref: VersionRef, text: str, features: dict[str, float | None]
        ) -> Answer | Refusal | Absent:
            return await canary.predict.remote(model, ref, text, features)

        def open_lookup(spec: ModelSpec) -> FeatureLookup:
            return FeatureLookup(lambda: open_feast(settings), spec.features.deadline_ms / 1000)

        specs = find_specs(settings.models_dir)
        self._service = EndpointService(settings, specs, GuardHandle(guard), ask_canary, open_lookup)
        self._background = Background()
        await self._service.start()
        self._background.start(self._service.run)

    def __serve_build_asgi_app__(self) -> Any:
        """Called by Serve after the constructor."""
        return build_app(self._service)

    def check_health(self) -> None:
        """Called by Serve."""
        self._background.check()


def application(settings: Settings) -> serve.Application:
    """The three deployments, bound to each other."""
    canary = CanaryProcess.bind()  # type: ignore[attr-defined]
    guard = GuardProcess.bind(canary)  # type: ignore[attr-defined]
    ingress = Ingress.options(num_replicas=settings.ingress_replicas)  # type: ignore[attr-defined]
    return ingress.bind(guard, canary)


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
