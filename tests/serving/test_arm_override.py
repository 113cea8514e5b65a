"""A tester names the arm of one request: only with the admin token, and it counts for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from mlops_assets.monitoring.predictions import read_predictions
from mlops_assets.resources.registry import Registry
from mlops_assets.serving.arm_override import NAME
from mlops_assets.settings import Settings
from mlops_assets.tokens import hash_of
from tests.serving.factories import MODEL, register, write_artefact, write_broken_artefact
from tests.serving.in_process import World, serving
from tests.serving.world import POLICY, settings_in

pytestmark = [pytest.mark.anyio, pytest.mark.slow]  # a whole endpoint in process

PREDICT, BATCH, INFER = "/predict", "/predict/batch", f"/v2/models/{MODEL}/infer"
BODIES: dict[str, dict[str, Any]] = {
    PREDICT: {"text": "hi", "customer_id": "C-1"},
    BATCH: {"instances": [{"text": "hi", "customer_id": "C-1"}]},
    INFER: {
        "inputs": [
            {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["hi"]},
            {"name": "customer_id", "datatype": "BYTES", "shape": [1], "data": ["C-1"]},
        ]
    },
}


async def on_trial(settings: Settings, write: Callable[..., str] = write_artefact, *label: str) -> World:
    """A production version that answers "refund", and a canary beside it."""
    world = await serving(settings)
    folder = settings.home / "canary"
    register(Registry(settings), folder, write(folder, *label), alias="canary")
    for _ in range(2):
        await world.settle()
    assert world.rollout()["phase"] == "progressing"
    return world


async def ask(
    world: World, arm: str, route: str = PREDICT, token: str | None = None, body: dict[str, Any] | None = None
) -> httpx.Response:
    headers = {NAME: arm, "Authorization": f"Bearer {token or world.settings.admin_secret()}"}
    return await world.client.post(route, json=body or BODIES[route], headers=headers)


def logged(world: World) -> list[dict[str, Any]]:
    segments = sorted(world.settings.model_home(MODEL).predictions.glob("*.ndjson"))
    return [json.loads(line) for path in segments for line in path.read_text().splitlines()]


async def test_the_named_arm_answers_every_customer_and_nothing_counts_it(settings: Settings) -> None:
    world = await on_trial(settings, write_artefact, "other")
    customers = [f"C-{number}" for number in range(20)]
    for arm, version, label in (("canary", 2, "other"), ("stable", 1, "refund")):
        replies = [(await ask(world, arm, body={"text": "hi", "customer_id": c})).json() for c in customers]
        assert {(r["arm"], r["model_version"], r["label"]) for r in replies} == {(arm, version, label)}
        await world.label(replies[0], "query")
    await world.settle()
    counts = world.rollout()["counts"]
    assert (counts["stable"]["requests"], counts["canary"]["requests"]) == (0, 0)
    assert (counts["stable"]["judged"], counts["canary"]["judged"]) == (0, 0)
    assert 'outcome="answered"' not in await world.service.metrics()
    records = logged(world)
    assert len(records) == 40
    assert {(r["overridden"], r["counted"], r["rollout_id"]) for r in records} == {(True, None, None)}
    assert read_predictions(settings.model_home(MODEL).predictions).rows.is_empty()
    ordinary = (await world.predict("C-1")).json()
    (record,) = (r for r in logged(world) if r["prediction_id"] == ordinary["prediction_id"])
    assert (record["overridden"], record["counted"]) == (False, ordinary["arm"])


async def test_in_a_shadow_step_a_tester_sees_what_the_canary_says(settings: Settings) -> None:
    world = await on_trial(settings_in(settings.home, {**POLICY, "shadow_minutes": 2.0}), write_artefact, "other")
    assert (await ask(world, "canary")).json()["label"] == "other"
    assert (await ask(world, "stable")).json()["label"] == "refund"
    await world.copies_answered()
    await world.settle()
    assert world.rollout()["counts"]["compared"] == 0


@pytest.mark.parametrize("token", ["wrong", "open sesame", "schlüssel"])
@pytest.mark.parametrize("route", [PREDICT, BATCH, INFER])
async def test_it_needs_the_admin_token(settings: Settings, route: str, token: str) -> None:
    world = await serving(settings_in(settings.home, predict_token=hash_of("open sesame")))
    headers = {NAME: "stable", "Authorization": f"Bearer {token}".encode()}
    reply = await world.client.post(route, json=BODIES[route], headers=headers)
    assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert "`Authorization: Bearer <token>`" in reply.json()["error" if route == INFER else "detail"]
    assert logged(world) == []
    assert (await ask(world, "stable", route)).status_code == 200  # which opens what the predict token opens


@pytest.mark.parametrize("arm", ["", "both", "Canary", "stable, canary"])
async def test_an_arm_that_there_is_not_is_refused(settings: Settings, arm: str) -> None:
    world = await serving(settings)
    reply = await ask(world, arm)
    assert (reply.status_code, reply.headers["content-type"]) == (422, "application/problem+json")
    assert reply.json()["detail"] == f"{NAME} must be one of: stable, canary"


async def test_a_canary_that_is_not_there_is_a_conflict_on_each_route(settings: Settings) -> None:
    world = await serving(settings)
    why = f"{MODEL} has no canary that takes requests now"
    single, batch, infer = [await ask(world, "canary", route) for route in (PREDICT, BATCH, INFER)]
    assert (single.status_code, single.headers["content-type"]) == (409, "application/problem+json")
    assert single.json()["detail"].startswith(why)
    (in_place,) = batch.json()["predictions"]
    assert (in_place["status"], in_place["detail"]) == (409, single.json()["detail"])
    assert infer.status_code == 409
    assert why in infer.json()["error"]
    assert logged(world) == []


async def test_batches_and_the_open_inference_protocol_follow_it_too(settings: Settings) -> None:
    world = await on_trial(settings, write_artefact, "other")
    for arm, version in (("stable", 1), ("canary", 2)):
        (prediction,) = (await ask(world, arm, BATCH)).json()["predictions"]
        assert (prediction["arm"], prediction["model_version"]) == (arm, version)
        assert (await ask(world, arm, INFER)).json()["model_version"] == str(version)


async def test_a_canary_that_fails_is_told_and_not_covered_up(settings: Settings) -> None:
    world = await on_trial(settings, write_broken_artefact)
    reply = await ask(world, "canary")
    assert reply.status_code == 500
    assert reply.json()["detail"].startswith("canary version 2 could not answer this message")
    await world.settle()
    assert world.rollout()["counts"]["canary"]["failures"] == 0


async def test_openapi_tells_of_it_where_it_works(settings: Settings) -> None:
    world = await serving(settings)
    paths = (await world.client.get("/openapi.json")).json()["paths"]
    told = {
        path
        for path, operations in paths.items()
        for operation in operations.values()
        if any(parameter["name"] == NAME for parameter in operation.get("parameters", []))
    }
    named = "/models/{model}"
    assert told == {PREDICT, BATCH, f"{named}{PREDICT}", f"{named}{BATCH}", f"/v2{named}/infer"}
