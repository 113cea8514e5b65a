"""Guard, canary and endpoint in one process, wired as in `deployments` but without Ray: the same objects, faster."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

from mlops_assets.declarations import find_specs
from mlops_assets.release.rollout import Approval
from mlops_assets.resources.registry import Registry
from mlops_assets.serving.canary_host import CanaryHost
from mlops_assets.serving.endpoint import EndpointService
from mlops_assets.serving.express_lane import ExpressLane
from mlops_assets.serving.guard import Guard, Rejected
from mlops_assets.serving.http import build_app
from mlops_assets.serving.lookup import FeatureLookup, Values
from mlops_assets.serving.metrics import Figures
from mlops_assets.serving.routing import Absent, Answer, Refusal, RoutingTable, Tally, VersionRef
from mlops_assets.serving.schemas import RolloutAnswer
from mlops_assets.settings import Settings
from tests.serving.factories import MODEL, register, write_artefact


class GuardDown(RuntimeError):
    """Stands for a dead guard process."""


class LocalGuard:
    """A guard that can be killed and revived."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.alive: Guard | None = Guard(settings, find_specs(settings.models_dir))

    @property
    def guard(self) -> Guard:
        if self.alive is None:
            raise GuardDown
        return self.alive

    def kill(self) -> None:
        self.alive = None

    def revive(self) -> None:
        self.alive = Guard(self.settings, find_specs(self.settings.models_dir))

    async def exchange(
        self, replica: str, tallies: Mapping[str, Tally], figures: Mapping[str, Figures]
    ) -> RoutingTable:
        return self.guard.exchange(replica, tallies, figures)

    async def rollout(self, model: str) -> dict[str, Any]:
        return self.guard.rollout(model)

    async def metrics(self) -> str:
        return self.guard.metrics()

    async def seal(self, model: str, version: int, approval: Approval | None) -> RolloutAnswer | Rejected:
        return self.guard.seal(model, version, approval)

    async def abort(self, model: str, version: int, reason: str) -> RolloutAnswer | Rejected:
        return self.guard.abort(model, version, reason)


class World:
    """One endpoint replica, one guard, one canary host; or a further replica beside those of another world."""

    def __init__(self, settings: Settings, beside: World | None = None) -> None:
        self.settings = settings
        self.guard = beside.guard if beside else LocalGuard(settings)
        self.canary = beside.canary if beside else CanaryHost(find_specs(settings.models_dir))
        self.features: dict[str, Values] = {}
        self.service = EndpointService(
            settings,
            find_specs(settings.models_dir),
            self.guard,
            self._ask_canary,
            lambda _: FeatureLookup(lambda: lambda customer, _: self.features.get(customer), 0.5),
        )
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(ExpressLane(build_app(self.service))), base_url="http://test"
        )

    async def settle(self) -> None:
        """One round of every loop, in the order in which news travel."""
        guard = self.guard.alive
        if guard is not None:
            guard.follow_registry()
            wanted = guard.wanted()
            guard.canary_holds(wanted, self.canary.hold(wanted))
        await self.service.start()

    async def predict(self, customer: str | None = None, **more: Any) -> httpx.Response:
        body = {"text": "where is my parcel?", **({"customer_id": customer} if customer else {}), **more}
        return await self.client.post("/predict", json=body)

    async def send(self, customers: int, first: int = 0) -> list[dict[str, Any]]:
        """One request of each of so many customers, eight at a time; all of them must be answered."""
        turn = asyncio.Semaphore(8)

        async def ask(customer: int) -> httpx.Response:
            async with turn:
                return await self.predict(f"C-{customer}")

        replies = await asyncio.gather(*(ask(first + i) for i in range(customers)))
        assert [reply.status_code for reply in replies] == [200] * customers
        return [reply.json() for reply in replies]

    async def label(self, reply: dict[str, Any], label: str) -> None:
        """Tell the true label of what was answered."""
        body = {"prediction_id": reply["prediction_id"], "label": label}
        assert (await self.client.post("/feedback", json=body)).status_code == 202

    async def copies_answered(self) -> None:
        """Wait for the copies that a shadow step sent."""
        await self.service.model(MODEL).shadow.settled()

    def rollout(self) -> dict[str, Any]:
        return self.guard.guard.rollout(MODEL)

    async def admin(self, route: str, body: dict[str, Any]) -> httpx.Response:
        token = self.settings.admin_secret()
        return await self.client.post(route, json=body, headers={"Authorization": f"Bearer {token}"})

    async def _ask_canary(
        self, model: str, ref: VersionRef, text: str, features: dict[str, float | None], traceparent: str | None
    ) -> Answer | Refusal | Absent:
        return await self.canary.answer(model, ref, text, features, traceparent)


def noon() -> str:
    return datetime(2026, 3, 1, 12, tzinfo=UTC).isoformat()


async def serving(settings: Settings) -> World:
    """A world whose production version, number 1, answers "refund"."""
    folder = settings.home / "artefact"
    register(Registry(settings), folder, write_artefact(folder, "refund"), alias="production")
    world = World(settings)
    await world.settle()
    assert (await world.admin("/clock", {"now": noon()})).status_code == 200
    return world


async def with_canary(settings: Settings) -> World:
    """The same, and version 2, which answers "other", is a canary that takes requests."""
    world = await serving(settings)
    folder = settings.home / "other"
    register(Registry(settings), folder, write_artefact(folder, "other"), alias="canary")
    await world.settle()
    await world.settle()
    assert world.rollout()["phase"] == "progressing"
    return world
