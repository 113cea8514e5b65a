"""What Prometheus reads of an endpoint: every request once, nothing of a customer, and next to no cost."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlops_assets.resources.registry import Registry
from mlops_assets.serving import endpoint, shadow
from mlops_assets.serving.exposition import NAMES
from mlops_assets.serving.metrics import Meter
from mlops_assets.serving.routing import RoutingTable
from mlops_assets.settings import Settings
from tests.serving.factories import MODEL, register, write_artefact, write_broken_artefact
from tests.serving.full_disk import no_room_in
from tests.serving.in_process import World, noon, serving, with_canary
from tests.serving.world import POLICY, declare, settings_in

pytestmark = [pytest.mark.anyio, pytest.mark.slow]  # a whole endpoint in process


class Scrape:
    """One scrape, read as Prometheus reads it."""

    def __init__(self, text: str) -> None:
        self.text = text
        families = text_string_to_metric_families(text)
        self.samples = [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum over all samples with these labels."""
        wanted = labels.items()
        return sum(s.value for s in self.samples if s.name == name and wanted <= s.labels.items())


async def scrape(world: World) -> Scrape:
    reply = await world.client.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain")
    return Scrape(reply.text)


@pytest.fixture(autouse=True)
def every_scrape_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "METRICS_SECONDS", 0.0)


@pytest.fixture
async def world(tmp_path: Path, mlflow_schema: Path) -> World:
    """Version 1 answers; version 2, whose every answer is not a number, is its canary."""
    shutil.copytree(mlflow_schema, tmp_path / "mlflow")
    settings: Settings = settings_in(tmp_path)
    for label, alias in (("refund", "production"), ("broken", "canary")):
        folder = tmp_path / label
        digest = write_artefact(folder, label) if alias == "production" else write_broken_artefact(folder)
        register(Registry(settings), folder, digest, alias=alias)
    world = World(settings)
    await world.settle()
    await world.settle()
    assert (await world.admin("/clock", {"now": noon()})).status_code == 200
    return world


async def test_every_request_is_counted_by_arm_version_and_outcome(world: World) -> None:
    await world.send(60)
    found = await scrape(world)
    canary = found.value("mlops_requests_total", arm="canary", version="2", outcome="failed")
    assert canary > 0
    assert found.value("mlops_requests_total", arm="stable", version="1", outcome="answered") == 60
    assert found.value("mlops_request_latency_seconds_count", model=MODEL, arm="stable") == 60
    assert found.value("mlops_request_latency_seconds_bucket", le="+Inf", arm="stable") == 60
    assert found.value("mlops_feature_lookups_total") == 60
    assert found.value("mlops_batched_requests_total") == 60
    assert found.value("mlops_batches_total") > 0


async def test_a_rollout_shows_its_phase_weight_and_evidence(world: World) -> None:
    found = await scrape(world)
    assert found.value("mlops_rollout_phase", model=MODEL, version="2", phase="progressing") == 1
    assert found.value("mlops_rollout_weight", model=MODEL) == 0.3
    await world.send(60)
    await world.service.exchange()
    after = await scrape(world)
    assert after.value("mlops_rollout_evidence", guard="failures") > found.value(
        "mlops_rollout_evidence", guard="failures"
    )
    assert after.value("mlops_rollout_evidence_limit", guard="failures") == pytest.approx(40)


async def test_a_log_that_cannot_be_written_is_counted(world: World) -> None:
    with no_room_in(world.settings.model_home(MODEL).predictions):
        assert (await world.predict()).status_code == 503
    assert (await scrape(world)).value("mlops_log_failures_total") == 1


async def test_the_last_record_is_the_last_that_was_written_though_more_was_answered(settings: Settings) -> None:
    declare(settings.models_dir, MODEL, POLICY, log="best_effort")
    world = await serving(settings)
    name = "mlops_log_last_record_timestamp_seconds"
    with no_room_in(settings.model_home(MODEL).predictions):
        assert (await world.predict()).status_code == 200
        found = await scrape(world)
        assert found.value("mlops_log_failures_total") == 1
        assert name not in {sample.name for sample in found.samples}
    assert (await world.predict()).status_code == 200
    assert (await scrape(world)).value(name) == pytest.approx(time.time(), abs=60)


async def shadowed(settings: Settings) -> World:
    """A canary that gets copies of 30 % of the customers' requests."""
    return await with_canary(settings_in(settings.home, {**POLICY, "shadow_minutes": 2.0}))


async def test_copies_of_a_shadow_step_are_counted_beside_the_requests(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "MAX_IN_FLIGHT", 3)
    world = await shadowed(settings)
    await world.send(60)
    await world.copies_answered()
    found, counts = await scrape(world), world.rollout()["counts"]
    copies = {sample.labels["outcome"]: sample.value for sample in found.samples if sample.name == "mlops_copies_total"}
    assert copies == {"answered": counts["compared"], "dropped": counts["dropped"]}
    assert found.value("mlops_copies_total", version="2") == sum(copies.values())
    assert found.value("mlops_requests_total") == found.value("mlops_requests_total", arm="stable", version="1") == 60


async def test_copies_whose_answers_cannot_be_logged_are_counted_and_told_once(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    world = await shadowed(settings)
    with no_room_in(settings.model_home(MODEL).shadow):
        await world.send(60)
        await world.copies_answered()
    found = await scrape(world)
    assert found.value("mlops_log_failures_total") == found.value("mlops_copies_total") > 1
    assert caplog.text.count("cannot be written") == 1


async def test_however_many_ask_the_guard_is_asked_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    exchange, metrics = world.guard.exchange, world.guard.metrics

    async def counted_exchange(*said: Any) -> RoutingTable:
        asked.append("exchange")
        return await exchange(*said)

    async def counted_metrics() -> str:
        asked.append("metrics")
        await asyncio.sleep(0.01)
        return await metrics()

    monkeypatch.setattr(world.guard, "exchange", counted_exchange)
    monkeypatch.setattr(world.guard, "metrics", counted_metrics)
    replies = await asyncio.gather(*(scrape(world) for _ in range(50)))
    assert len({reply.text for reply in replies}) == 1
    assert asked == ["exchange", "metrics"]


async def test_names_are_the_known_ones_and_nothing_of_a_customer_is_told(world: World) -> None:
    await world.predict("C-secret", text="my card is 4111")
    found = await scrape(world)
    assert {sample.name for sample in found.samples} <= NAMES
    assert "C-secret" not in found.text
    assert "4111" not in found.text


async def test_the_counts_of_another_replica_are_in_the_same_scrape(world: World) -> None:
    other = World(world.settings, beside=world)
    await other.settle()
    await world.predict("C-1")
    await other.predict("C-1")
    await other.service.exchange()
    found = await scrape(world)
    replicas = {sample.labels["replica"] for sample in found.samples if sample.name == "mlops_requests_total"}
    assert replicas == {world.service.replica, other.service.replica}


async def test_without_the_guard_a_scrape_is_refused(world: World) -> None:
    world.guard.kill()
    assert (await world.client.get("/metrics")).status_code == 503


async def test_counting_a_request_costs_little() -> None:
    meter, rounds = Meter(), 20_000
    started = time.process_time()
    for number in range(rounds):
        meter.looked_up("hit")
        meter.logged()
        meter.answered("stable", 1, number % 100)
    assert (time.process_time() - started) / rounds < 50e-6
