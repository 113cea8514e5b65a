"""The endpoint in one ingress replica: its models, and its exchange with the guard.

Each half second it hands its counts to the guard and takes the routing table. Without a guard it goes
to the registry for the production versions and lets no canary answer: an unguarded canary is none.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

from mlops_assets import clock
from mlops_assets.release.rollout import Approval
from mlops_assets.resources.registry import Registry
from mlops_assets.serving.canary_call import AskCanary
from mlops_assets.serving.fresh import Fresh
from mlops_assets.serving.guard import Rejected, route_from_registry
from mlops_assets.serving.lookup import FeatureLookup
from mlops_assets.serving.metrics import Figures
from mlops_assets.serving.model_service import ModelService
from mlops_assets.serving.problems import Problem
from mlops_assets.serving.routing import Route, RoutingTable, Tally
from mlops_assets.serving.schemas import ApprovalBody, RolloutAnswer
from mlops_assets.serving.trouble import Trouble
from mlops_assets.settings import Settings
from mlops_assets.spec import ModelSpec

EXCHANGE_SECONDS = 0.5
# So long without the guard, and the canary gets no more requests.
UNGUARDED_SECONDS = 5.0
_GUARD_SECONDS = 3.0
# All processes start at once, and MLflow, which is imported to ask the registry, costs a replica seconds and 80 MB.
_FIRST_GUARD_SECONDS = 10.0
_FIRST_REGISTRY_SECONDS = 10.0
# Less than a client waits, so that it hears why.
_ADMIN_SECONDS = 8.0
# Anybody may ask for metrics and rollouts, and either takes the guard as long as several exchanges.
METRICS_SECONDS = 1.0
ROLLOUT_SECONDS = EXCHANGE_SECONDS  # counts are not newer


class AskGuard(Protocol):
    """The guard as a replica reaches it."""

    async def exchange(
        self, replica: str, tallies: Mapping[str, Tally], figures: Mapping[str, Figures]
    ) -> RoutingTable: ...

    async def rollout(self, model: str) -> dict[str, Any]: ...

    async def metrics(self) -> str: ...

    async def seal(self, model: str, version: int, approval: Approval | None) -> RolloutAnswer | Rejected: ...

    async def abort(self, model: str, version: int, reason: str) -> RolloutAnswer | Rejected: ...


class EndpointService:
    """All models of one ingress replica.

    Args:
        specs: the declared models; the first is the default.
        guard: reaches the guard; every call may fail.
        ask_canary: reaches the canary; every call may fail.
        open_lookup: makes the feature look-up of a model.
    """

    def __init__(
        self,
        settings: Settings,
        specs: list[ModelSpec],
        guard: AskGuard,
        ask_canary: AskCanary,
        open_lookup: Callable[[ModelSpec], FeatureLookup],
    ) -> None:
        self.replica = f"ingress-{uuid.uuid4().hex[:12]}"
        self.admin_tokens = settings.admin_hashes()
        self.predict_tokens = (settings.predict_token, *self.admin_tokens) if settings.predict_token else ()
        self._settings = settings
        self._guard = guard
        self._registry = Registry(settings)
        self._models = {
            spec.name: ModelService(spec, settings, self.replica, open_lookup(spec), ask_canary) for spec in specs
        }
        self._table = RoutingTable()
        self._heard_at: float | None = None
        self._guard_error: str | None = "not heard of yet"
        self._exchanging = asyncio.Lock()
        self._registry_trouble = Trouble("without the guard, the registry cannot be followed")
        self._asking_registry: asyncio.Task[None] | None = None
        self._metrics = Fresh(self._render_metrics, METRICS_SECONDS)
        self._rollouts = {name: Fresh(partial(self._ask_rollout, name), ROLLOUT_SECONDS) for name in self._models}
        self._loading: dict[str, asyncio.Task[None]] = {}

    @property
    def names(self) -> list[str]:
        """The models, the default first."""
        return list(self._models)

    @property
    def default_model(self) -> str:
        """The model behind the routes that name none."""
        return next(iter(self._models))

    def model(self, name: str) -> ModelService:
        """One model.

        Raises:
            Problem: 404, there is no such model.
        """
        try:
            return self._models[name]
        except KeyError:
            raise Problem(
                HTTPStatus.NOT_FOUND, f"there is no model {name!r}; there are: {', '.join(self._models)}"
            ) from None

    async def start(self) -> None:
        """Take the first table, from the guard or else from the registry, and load what it names."""
        if not await self.exchange(_FIRST_GUARD_SECONDS):
            await asyncio.wait([self._ask_registry()], timeout=_FIRST_REGISTRY_SECONDS)
        await asyncio.gather(*self._loading.values())

    async def run(self) -> None:
        """Exchange with the guard for as long as the replica lives."""
        while True:
            await asyncio.sleep(EXCHANGE_SECONDS)
            if not await self.exchange() and self._unguarded:
                self._apply({name: Route(stable=model.route.stable) for name, model in self._models.items()})
                self._ask_registry()

    async def metrics(self) -> str:
        """What Prometheus reads: this replica's counts, `METRICS_SECONDS` old at most, and the others' last reports.

        Raises:
            Problem: 503, the guard cannot be reached.
        """
        return await self._metrics()

    async def exchange(self, patience: float = _GUARD_SECONDS) -> bool:
        """One exchange of counts against routes; False when the guard cannot be reached for `patience` seconds.

        All counts are sums so far: what the guard does not hear now, it hears next time. One exchange after the
        other, so that it never hears less than before, and no older route follows a newer one.
        """
        async with self._exchanging:
            tallies = {name: tally for name, model in self._models.items() if (tally := model.tally.report())}
            figures = {name: model.figures() for name, model in self._models.items()}
            try:
                self._table = await asyncio.wait_for(self._guard.exchange(self.replica, tallies, figures), patience)
            except Exception as error:  # noqa: BLE001 - one that died or hangs comes back; until then we go on without
                self._guard_error = type(error).__name__
                return False
            self._heard_at, self._guard_error = time.monotonic(), None
            for name, labels in self._table.labels.items():
                self._models[name].tally.exchanged(tallies[name], labels)
            self._apply(self._table.routes)
            return True

    async def rollout(self, model: str) -> dict[str, Any]:
        """The newest rollout of a model, as the guard saw it `ROLLOUT_SECONDS` ago at most."""
        self.model(model)
        return await self._rollouts[model]()

    async def seal(self, model: str, version: int, given: ApprovalBody | None) -> RolloutAnswer:
        """Seal a rollout that is judged fit, with a person's approval if there is one.

        Returns:
            "sealed", "aborted: why" or "not ready: why".

        Raises:
            Problem: 409 there is no rollout of that version, 503 guard or registry cannot be reached.
        """
        self.model(model)
        approval = Approval(given.by, given.at) if given is not None else None
        return self._admitted(await self._ask(self._guard.seal(model, version, approval)))

    async def abort(self, model: str, version: int, reason: str) -> RolloutAnswer:
        """Stop a rollout by hand.

        Raises:
            Problem: 409 there is nothing to stop, 503 the guard cannot be reached.
        """
        self.model(model)
        answer = self._admitted(await self._ask(self._guard.abort(model, version, reason)))
        await self.exchange()
        return answer

    def move_clock(self, to: datetime) -> datetime:
        """Move the replayed clock.

        Raises:
            Problem: 409, there is no replay, or time would go back.
        """
        try:
            return clock.move(self._settings, to)
        except ValueError as error:
            raise Problem(HTTPStatus.CONFLICT, str(error)) from error

    def health(self) -> dict[str, Any]:
        """What serves, and how its surroundings are."""
        guard_error = self._guard_error or _unwritten(self._table.unwritten)
        models = {name: _model_health(model) for name, model in self._models.items()}
        well = (
            self._table.registry.reachable and guard_error is None and all(_is_well(model) for model in models.values())
        )
        return {
            "status": "ok" if well else "degraded",
            "ready": all(m["stable"] is not None for m in models.values()),
            "replica": self.replica,
            "pid": os.getpid(),
            "models": models,
            "registry": {
                "ok": self._table.registry.reachable,
                "checked_at": self._table.registry.checked_at,
                "error": self._table.registry.error,
            },
            "guard": {"ok": guard_error is None, "error": guard_error},
        }

    @property
    def _unguarded(self) -> bool:
        return self._heard_at is None or time.monotonic() - self._heard_at > UNGUARDED_SECONDS

    def _ask_registry(self) -> asyncio.Task[None]:
        """Ask, once at a time, for the production versions; a registry that hangs takes minutes over it."""
        if self._asking_registry is None or self._asking_registry.done():
            self._asking_registry = asyncio.create_task(self._follow_registry())
        return self._asking_registry

    async def _follow_registry(self) -> None:
        try:
            routes = {name: await asyncio.to_thread(route_from_registry, self._registry, name) for name in self.names}
        except Exception as error:  # noqa: BLE001 - whatever the registry comes up with, what is loaded serves on
            self._registry_trouble.met(error)
            return
        self._registry_trouble.over()
        if self._unguarded:  # else the guard is back, and knows better
            self._apply(routes)

    async def _ask_rollout(self, model: str) -> dict[str, Any]:
        described: dict[str, Any] = await self._ask(self._guard.rollout(model))
        return described

    async def _render_metrics(self) -> str:
        await self.exchange()  # so that this replica's counts are those of now
        text: str = await self._ask(self._guard.metrics())
        return text

    def _apply(self, routes: Mapping[str, Route]) -> None:
        for name, model in self._models.items():
            model.follow(routes.get(name, Route()))
            if name not in self._loading or self._loading[name].done():
                self._loading[name] = asyncio.create_task(asyncio.to_thread(model.stable.follow, model.route.stable))

    async def _ask(self, asked: Any) -> Any:
        try:
            return await asyncio.wait_for(asked, _ADMIN_SECONDS)
        except Exception as error:
            detail = f"the guard cannot be reached ({type(error).__name__}); ask again in a moment"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "2"}) from error

    @staticmethod
    def _admitted(answer: RolloutAnswer | Rejected) -> RolloutAnswer:
        if isinstance(answer, Rejected):
            raise Problem(HTTPStatus(answer.status), answer.reason)
        return answer


def _unwritten(why: Mapping[str, str]) -> str | None:
    if not why:
        return None
    return "; ".join(f"the state of {name}'s rollout cannot be written: {reason}" for name, reason in why.items())


def _is_well(model: Mapping[str, Any]) -> bool:
    return bool(model["stable"] and not model["error"] and model["feature_store"]["ok"] and model["log"]["ok"])


def _model_health(model: ModelService) -> dict[str, Any]:
    loaded, canary = model.stable.current, model.route.canary
    return {
        "stable": {"version": loaded.ref.version, "artefact_digest": loaded.ref.digest} if loaded else None,
        "canary": {
            "version": canary.ref.version,
            "artefact_digest": canary.ref.digest,
            "weight": canary.weight,
            "shadow": canary.shadow,
            "rollout_id": canary.rollout_id,
        }
        if canary
        else None,
        "error": model.stable.error,
        "feature_store": {
            "ok": model.lookup.error is None,
            "error": model.lookup.error,
            "copy_age_seconds": model.lookup.copy_age,
        },
        "log": {
            "policy": model.spec.serving.log,
            "ok": model.log_error is None,
            "error": model.log_error,
            "unlogged": model.unlogged,
        },
    }
