"""The trace of a request goes through the endpoint: out with the reply, and into the log."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mlops_assets.resources.registry import Registry
from mlops_assets.serving.tracing import parse
from tests.serving.factories import MODEL, register, write_artefact, write_broken_artefact
from tests.serving.in_process import World, noon
from tests.serving.world import settings_in

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{PARENT}-01"
INVALID = {
    "empty": "",
    "upper case": VALID.upper(),
    "no trace": f"00-{'0' * 32}-{PARENT}-01",
    "no parent": f"00-{TRACE}-{'0' * 16}-01",
    "version ff": f"ff-{TRACE}-{PARENT}-01",
    "too long": f"{VALID}-more",
    "too short": VALID[:-1],
    "injected": f"{VALID}\\r\\nset-cookie: a",
}


@pytest.fixture
async def world(tmp_path: Path, mlflow_schema: Path) -> World:
    shutil.copytree(mlflow_schema, tmp_path / "mlflow")
    settings = settings_in(tmp_path)
    register(Registry(settings), tmp_path / "a", write_artefact(tmp_path / "a", "refund"), alias="production")
    world = World(settings)
    await world.settle()
    return world


def logged(world: World) -> list[str | None]:
    segments = sorted(world.settings.model_home(MODEL).predictions.glob("*.ndjson"))
    return [json.loads(line)["trace_id"] for path in segments for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_valid_trace_is_passed_on_and_logged(world: World) -> None:
    body = {"text": "hi", "event_timestamp": noon()}
    reply = await world.client.post("/predict", json=body, headers={"traceparent": VALID})
    passed_on = reply.headers["traceparent"]
    assert passed_on.startswith(f"00-{TRACE}-")
    assert passed_on.endswith("-01")
    assert passed_on.split("-")[2] != PARENT
    plain = await world.client.post("/predict", json=body)
    assert "traceparent" not in plain.headers
    assert logged(world) == [TRACE, None]


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_refusal_carries_the_trace_too(world: World) -> None:
    reply = await world.client.post("/predict", json={}, headers={"traceparent": VALID})
    assert (reply.status_code, reply.headers["traceparent"][3:35]) == (422, TRACE)


@pytest.mark.slow
@pytest.mark.anyio
async def test_the_canarys_process_names_the_trace_of_an_answer_that_failed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    folder = world.settings.home / "b"
    register(Registry(world.settings), folder, write_broken_artefact(folder), alias="canary")
    for _ in range(2):
        await world.settle()
    for customer in range(80):
        body = {"text": "hi", "customer_id": f"C-{customer}", "event_timestamp": noon()}
        headers = {"traceparent": VALID} if customer % 2 else {}
        await world.client.post("/predict", json=body, headers=headers)
    said = [line for line in caplog.messages if "canary version 2 could not answer" in line]
    traced = [line for line in said if f"(trace {TRACE})" in line]
    assert 0 < len(traced) < len(said)


@pytest.mark.parametrize("header", INVALID.values(), ids=INVALID)
def test_what_is_not_valid_counts_as_absent(header: str) -> None:
    assert parse(header) is None


def test_a_later_version_may_say_more() -> None:
    trace = parse(f"01-{TRACE}-{PARENT}-01-more")
    assert trace is not None
    assert trace.trace_id == TRACE
