"""A batch: every message of it is answered, split and logged as if it had come alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlops_assets.resources.registry import Registry
from mlops_assets.serving.schemas import MAX_INSTANCES
from mlops_assets.settings import Settings
from mlops_assets.tokens import hash_of
from tests.serving.factories import MODEL, register, write_artefact
from tests.serving.in_process import World, serving
from tests.serving.world import settings_in

pytestmark = [pytest.mark.anyio, pytest.mark.slow]  # a whole endpoint in process


async def ask(world: World, instances: Any, route: str = "/predict/batch") -> httpx.Response:
    return await world.client.post(route, json={"instances": instances})


def logged(world: World) -> list[dict[str, Any]]:
    folder: Path = world.settings.model_home(MODEL).predictions
    return [json.loads(line) for path in sorted(folder.glob("*.ndjson")) for line in path.read_text().splitlines()]


async def test_every_message_is_answered_in_order_and_logged(settings: Settings) -> None:
    world = await serving(settings)
    texts = [f"message {number}" for number in range(MAX_INSTANCES)]
    reply = await ask(world, [{"text": text, "customer_id": text[-1]} for text in texts])
    assert reply.status_code == 200, reply.text
    assert reply.json()["failed"] == 0
    by_id = {record["prediction_id"]: record for record in logged(world)}
    answered = [by_id[prediction["prediction_id"]] for prediction in reply.json()["predictions"]]
    assert [record["text"] for record in answered] == texts
    assert len(by_id) == MAX_INSTANCES


async def test_it_is_split_by_customer_like_single_messages(settings: Settings) -> None:
    world = await serving(settings)
    folder = settings.home / "canary"
    register(Registry(settings), folder, write_artefact(folder, "query"), alias="canary")
    await world.settle()
    await world.settle()
    customers = [f"C-{number}" for number in range(40)]
    singly = [(await world.predict(customer)).json()["arm"] for customer in customers]
    reply = await ask(
        world, [{"text": "where?", "customer_id": c} for c in customers], f"/models/{MODEL}/predict/batch"
    )
    assert [prediction["arm"] for prediction in reply.json()["predictions"]] == singly
    assert set(singly) == {"stable", "canary"}


async def test_a_faulty_message_is_a_problem_in_its_place_and_harms_no_other(settings: Settings) -> None:
    world = await serving(settings)
    faulty: list[Any] = [{"text": ""}, {"text": "x" * 10_000}, {"txt": "hi"}, "hi", None]
    reply = await ask(world, [{"text": "first"}, *faulty, {"text": "last"}])
    assert reply.status_code == 200, reply.text
    predictions = reply.json()["predictions"]
    assert (predictions[0]["label"], predictions[-1]["label"]) == ("refund", "refund")
    assert [problem["status"] for problem in predictions[1:-1]] == [422] * len(faulty)
    assert predictions[1]["errors"][0]["field"] == "text"
    assert reply.json()["failed"] == len(faulty)
    assert len(logged(world)) == 2


@pytest.mark.parametrize("instances", [[], [{"text": "hi"}] * (MAX_INSTANCES + 1), None, {"text": "hi"}])
async def test_a_batch_of_a_wrong_size_or_kind_is_refused_whole(settings: Settings, instances: Any) -> None:
    world = await serving(settings)
    reply = await ask(world, instances)
    assert (reply.status_code, reply.headers["content-type"]) == (422, "application/problem+json")
    assert reply.json()["errors"][0]["field"] == "instances"
    assert logged(world) == []


async def test_it_needs_the_predict_token_when_one_is_set(settings: Settings) -> None:
    world = await serving(settings_in(settings.home, predict_token=hash_of("open sesame")))
    assert (await ask(world, [{"text": "hi"}])).status_code == 401
    world.client.headers["Authorization"] = "Bearer open sesame"
    assert (await ask(world, [{"text": "hi"}])).status_code == 200
