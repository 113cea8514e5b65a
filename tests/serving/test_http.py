"""What a caller sees: answers, and problem documents for everything that cannot be served."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import resource
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlops_assets.resources.predictors import Answers
from mlops_assets.resources.registry import Registry
from mlops_assets.serving import batcher, endpoint
from mlops_assets.serving.batcher import Floats, MicroBatcher
from mlops_assets.settings import Settings
from mlops_assets.tokens import hash_of
from tests.serving.factories import DEFAULTS, LABELS, MODEL, register, write_artefact, write_broken_artefact
from tests.serving.full_disk import no_room_in
from tests.serving.in_process import World, noon
from tests.serving.networks import Network, a_door
from tests.serving.world import POLICY, declare, settings_in

pytestmark = [pytest.mark.anyio, pytest.mark.slow]  # a whole endpoint in process


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, mlflow_schema: Path) -> Settings:
    """A home whose registry has one production version that answers "refund"."""
    home = tmp_path_factory.mktemp("served")
    shutil.copytree(mlflow_schema, home / "mlflow")
    settings = settings_in(home)
    folder = home / "artefact"
    register(Registry(settings), folder, write_artefact(folder, "refund"), alias="production")
    return settings


async def serving(settings: Settings) -> World:
    world = World(settings)
    await world.settle()
    return world


@pytest.fixture
async def world(served: Settings) -> World:
    world = await serving(served)
    assert (await world.admin("/clock", {"now": noon()})).status_code == 200
    return world


def problem(reply: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of a reply, checked for its form and for what it must not reveal."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in reply.text
    document = reply.json()
    assert document["status"] == status
    return document


def records(world: World, kind: str = "predictions") -> list[dict[str, Any]]:
    """What this world's replica has logged."""
    folder: Path = getattr(world.settings.model_home(MODEL), kind)
    segments = sorted(folder.glob(f"{world.service.replica}-*.ndjson"))
    return [json.loads(line) for path in segments for line in path.read_text().splitlines()]


async def test_a_message_is_classified_and_its_record_is_on_disk(world: World) -> None:
    world.features["C-1"] = {"orders_90d": 3.0, "spend_90d": None}
    reply = (await world.predict("C-1", return_probabilities=True)).json()
    assert (reply["label"], reply["model"], reply["model_version"], reply["arm"]) == ("refund", MODEL, 1, "stable")
    assert set(reply["probabilities"]) == set(LABELS)
    assert reply["confidence"] == pytest.approx(reply["probabilities"]["refund"])
    assert reply["features_source"] in {"online", "default"}  # the store may still be opening
    (record,) = records(world)
    assert record["prediction_id"] == reply["prediction_id"]
    assert (record["version"], record["arm"], record["rollout_id"]) == (1, "stable", None)
    assert (record["status"], record["error"], record["repeat"]) == ("ok", None, False)
    assert record["text"] == "where is my parcel?"
    assert len(record["probabilities"]) == len(LABELS)
    assert set(record["features"]) == set(DEFAULTS)
    assert datetime.fromisoformat(record["event_timestamp"]) == datetime.fromisoformat(noon())


async def test_looked_up_features_are_used_and_logged(world: World) -> None:
    world.features["C-1"] = {"orders_90d": 3.0, "spend_90d": None}
    for _ in range(50):
        reply = (await world.predict("C-1")).json()
        if reply["features_source"] == "online":
            break
    assert records(world)[-1]["features"] == {**DEFAULTS, "orders_90d": 3.0}
    unknown = (await world.predict("C-2")).json()
    assert unknown["features_source"] == "default"
    assert "unknown" in unknown["features_reason"]


async def test_event_time_and_repeats_are_taken_under_a_replayed_clock(world: World) -> None:
    reply = await world.predict("C-1", event_timestamp="2026-03-01T14:00:00+02:00", repeat=True)
    assert reply.status_code == 200
    assert datetime.fromisoformat(records(world)[-1]["event_timestamp"]) == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert records(world)[-1]["repeat"] is True


async def test_event_time_is_refused_without_one(served: Settings) -> None:
    world = await serving(settings_in(served.home, replay_clock=False))
    assert problem(await world.predict(event_timestamp=noon()), 422)["errors"][0]["field"] == "event_timestamp"
    assert problem(await world.predict(repeat=True), 422)["errors"][0]["field"] == "repeat"
    problem(await world.admin("/clock", {"now": noon()}), 409)
    assert (await world.predict()).status_code == 200


@pytest.mark.parametrize("time", ["2026-03-01T12:00:00", "0001-01-01T00:00:00+05:00", "9999-12-31T23:00:00-05:00"])
async def test_a_time_without_a_zone_or_beyond_the_calendar_is_refused(world: World, time: str) -> None:
    document = problem(await world.predict(event_timestamp=time), 422)
    assert document["errors"][0]["field"] == "event_timestamp"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"text": ""}, "text"),
        ({"text": "x" * 10_000}, "text"),
        ({"text": None}, "text"),
        ({}, "text"),
        ({"text": 7}, "text"),
        ({"text": "hi", "customer": "C-1"}, "customer"),
        ({"text": "hi", "customer_id": ""}, "customer_id"),
    ],
)
async def test_a_body_with_a_fault_names_the_field(world: World, body: dict[str, Any], field: str) -> None:
    document = problem(await world.client.post("/predict", json=body), 422)
    assert [error["field"] for error in document["errors"]] == [field]


@pytest.mark.parametrize("content", [b"", b"not json", b'{"text": ', b"\xff\xfe", b"[" * 5000])
async def test_a_body_that_is_no_json_is_a_bad_request(world: World, content: bytes) -> None:
    reply = await world.client.post("/predict", content=content, headers={"content-type": "application/json"})
    assert reply.status_code in {400, 422}
    problem(reply, reply.status_code)


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain"])
async def test_a_body_that_does_not_say_that_it_is_json_is_told_how_to(world: World, kind: str | None) -> None:
    headers = {"content-type": kind} if kind else {}
    reply = await world.client.post("/predict", content=b'{"text": "hi"}', headers=headers)
    assert "`Content-Type: application/json`" in problem(reply, 415)["detail"]


async def test_a_body_that_is_no_text_is_told_what_it_has_to_be(world: World) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    reply = await world.client.post("/predict", content=gzip.compress(b'{"text": "hi"}'), headers=headers)
    assert "must be UTF-8, and not compressed" in problem(reply, 400)["detail"]


async def test_half_a_surrogate_pair_is_refused(world: World) -> None:
    reply = await world.client.post(
        "/predict", content=b'{"text": "\\ud800"}', headers={"content-type": "application/json"}
    )
    assert problem(reply, 422)["errors"][0]["field"] == "text"


@pytest.mark.parametrize("content", [b'{"text": ' + b"[" * 17 + b"]" * 17 + b"}", b'{"a":' * 500 + b"1" + b"}" * 500])
async def test_a_body_that_nests_too_deep_is_refused(world: World, content: bytes) -> None:
    for more in ({}, {"Inference-Header-Content-Length": "0"}):  # of another protocol: no way around the limit
        headers = {"content-type": "application/json", **more}
        reply = await world.client.post("/predict", content=content, headers=headers)
        assert "16 levels" in problem(reply, 400)["detail"]


async def test_brackets_in_a_message_are_no_depth(world: World) -> None:
    assert (await world.client.post("/predict", json={"text": "[{" * 100 + '\\"[[' * 20})).status_code == 200


class Quotes:
    """A network that repeats its message in its complaint, as tokenisers do."""

    def predict(self, texts: Sequence[str], features: Floats) -> Answers:
        raise ValueError(f"cannot read {texts[0]!r} with {features.shape}")


async def test_no_message_of_a_customer_comes_into_the_servers_log(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    folder = settings.home / "artefact"
    register(Registry(settings), folder, write_artefact(folder, "refund"), alias="production")
    world = World(settings)
    await world.settle()
    stable = world.service.model(MODEL).stable
    assert stable.current is not None
    stable._current = replace(stable.current, batcher=MicroBatcher(Quotes()))
    reply = await world.predict(event_timestamp=noon())
    assert "parcel" not in problem(reply, 500)["detail"]
    assert "could not answer" in caplog.text
    assert "ValueError" in caplog.text
    assert "parcel" not in caplog.text


async def test_a_network_that_hangs_keeps_nobody_waiting_for_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "HUNG_SECONDS", 1.0)
    stable = world.service.model(MODEL).stable
    assert stable.current is not None
    with a_door() as door:
        monkeypatch.setattr(
            stable, "_current", replace(stable.current, batcher=MicroBatcher(Network(door), patience=0.3))
        )
        in_the_network = asyncio.create_task(world.predict(text="stop"))
        assert await asyncio.to_thread(door.held.wait, 5)
        behind = asyncio.create_task(world.predict())
        assert "waited longer than 0.3 s" in problem(await behind, 429)["detail"]
        assert "waiting already" in problem(await world.predict(), 429)["detail"]
        problem(await in_the_network, 500)


async def test_a_body_over_64_kib_is_refused(world: World) -> None:
    problem(await world.client.post("/predict", json={"text": "x" * 70_000}), 413)


async def test_unknown_routes_models_and_methods(world: World) -> None:
    assert "GET /" in problem(await world.client.get("/nowhere"), 404)["detail"]
    assert MODEL in problem(await world.client.post("/models/none/predict", json={"text": "hi"}), 404)["detail"]
    problem(await world.client.get("/models/none/rollout"), 404)
    problem(await world.client.get("/predict"), 405)
    evil = await world.client.post("/predict/", json={"text": "hi"}, headers={"Host": "evil.example"})
    assert "no route /predict/" in problem(evil, 404)["detail"]


async def test_admin_routes_need_the_token(world: World) -> None:
    for route in ("/clock", f"/models/{MODEL}/rollout/seal", f"/models/{MODEL}/rollout/abort"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}):
            problem(await world.client.post(route, json={}, headers=headers), 401)


async def test_predict_needs_its_token_when_one_is_set(served: Settings) -> None:
    world = await serving(settings_in(served.home, predict_token=hash_of("open sesame"), replay_clock=False))
    problem(await world.predict(), 401)
    problem(await world.client.post("/clock", json={}, headers={"Authorization": "Bearer open sesame"}), 401)
    for token in ("open sesame", world.settings.admin_secret()):
        world.client.headers["Authorization"] = f"Bearer {token}"
        assert (await world.predict()).status_code == 200


async def test_a_persons_admin_token_is_known_by_its_hash_alone(served: Settings) -> None:
    world = await serving(settings_in(served.home, admin_token=hash_of("open sesame")))
    for token, status in (("open sesame", 200), (hash_of("open sesame"), 401), ("", 401), ("ö", 401)):
        headers = {"Authorization": f"Bearer {token}".encode("latin-1")}
        reply = await world.client.post("/clock", json={"now": noon()}, headers=headers)
        assert reply.status_code == status, token
    assert (await world.admin("/clock", {"now": noon()})).status_code == 200  # the home's own


async def test_the_clock_does_not_go_back(world: World) -> None:
    problem(await world.admin("/clock", {"now": "2026-02-01T00:00:00Z"}), 409)


async def test_feedback_is_kept_also_for_a_prediction_nobody_knows(world: World) -> None:
    reply = await world.client.post("/feedback", json={"prediction_id": "p1", "label": "other"})
    assert (reply.status_code, reply.json()) == (202, {"prediction_id": "p1", "accepted": True})
    (record,) = records(world, "feedback")
    assert (record["prediction_id"], record["label"]) == ("p1", "other")
    assert datetime.fromisoformat(record["label_timestamp"]) == datetime.fromisoformat(noon())


async def test_feedback_with_an_unknown_label_is_refused(world: World) -> None:
    reply = await world.client.post("/feedback", json={"prediction_id": "p1", "label": "nonsense"})
    assert "greeting" in problem(reply, 422)["detail"]


async def test_without_a_production_version_predict_says_so_and_health_works(settings: Settings) -> None:
    world = World(settings)
    await world.settle()
    document = problem(await world.predict(event_timestamp=noon()), 503)
    assert "alias production" in document["detail"]
    health = (await world.client.get("/health")).json()
    assert (health["status"], health["ready"], health["registry"]["ok"]) == ("degraded", False, True)


async def metrics(world: World) -> str:
    return (await world.client.get("/metrics")).text


async def test_a_changed_artefact_is_refused_and_counted_until_it_is_mended(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "METRICS_SECONDS", 0.0)
    folder = settings.home / "artefact"
    version = register(Registry(settings), folder, write_artefact(folder, "refund"), alias="production")
    (version.artefact / "model.onnx").write_bytes(b"something else")
    world = World(settings)
    await world.settle()
    assert "refused" in problem(await world.predict(event_timestamp=noon()), 503)["detail"]
    told = await world.client.get("/health")
    assert "model.onnx does not match the digest in its manifest" in told.json()["models"][MODEL]["error"]
    assert str(settings.home) not in told.text  # where things lie here is no caller's business
    assert str(version.artefact / "model.onnx") in caplog.text
    assert f'mlops_refused_version{{model="{MODEL}",replica="{world.service.replica}"}} 1.0' in await metrics(world)
    write_artefact(version.artefact, "refund")
    world.service.model(MODEL).stable._retry_at = 0.0
    await world.settle()
    assert f'mlops_refused_version{{model="{MODEL}",replica="{world.service.replica}"}} 0.0' in await metrics(world)


async def test_a_message_that_no_arm_can_answer_is_logged_as_failed(settings: Settings) -> None:
    folder = settings.home / "artefact"
    register(Registry(settings), folder, write_broken_artefact(folder), alias="production")
    world = World(settings)
    await world.settle()
    problem(await world.predict(event_timestamp=noon()), 500)
    (record,) = records(world)
    assert (record["status"], record["label"], record["version"]) == ("failed", None, 1)


async def test_nothing_is_answered_that_cannot_be_logged(world: World) -> None:
    with no_room_in(world.settings.model_home(MODEL).predictions):
        assert "log" in problem(await world.predict("C-1"), 503)["detail"]
        health = (await world.client.get("/health")).json()
        assert (health["status"], health["models"][MODEL]["log"]["ok"]) == ("degraded", False)
    assert (await world.predict("C-1")).status_code == 200
    log = (await world.client.get("/health")).json()["models"][MODEL]["log"]
    assert log == {"policy": "mandatory", "ok": True, "error": None, "unlogged": 0}


async def test_where_the_log_is_best_effort_it_is_counted_what_is_not_in_it(settings: Settings) -> None:
    declare(settings.models_dir, MODEL, POLICY, log="best_effort")
    folder = settings.home / "artefact"
    register(Registry(settings), folder, write_artefact(folder, "refund"), alias="production")
    world = World(settings)
    await world.settle()
    with no_room_in(settings.model_home(MODEL).predictions):
        replies = [await world.predict(event_timestamp=noon()) for _ in range(3)]
        assert [reply.status_code for reply in replies] == [200] * 3
        log = (await world.client.get("/health")).json()["models"][MODEL]["log"]
        assert (log["ok"], log["unlogged"], "cannot be written" in log["error"]) == (False, 3, True)
    assert (await world.predict(event_timestamp=noon())).status_code == 200
    log = (await world.client.get("/health")).json()["models"][MODEL]["log"]
    assert (log["ok"], log["unlogged"]) == (True, 3)
    assert len(records(world)) == 1


async def test_a_full_disk_is_told_and_what_is_logged_stays_whole(settings: Settings) -> None:
    folder = settings.home / "artefact"
    register(Registry(settings), folder, write_artefact(folder, "refund"), alias="production")
    world = World(settings)
    await world.settle()
    answered = [(await world.predict(event_timestamp=noon())).json()["prediction_id"]]
    (segment,) = settings.model_home(MODEL).predictions.glob("*.ndjson")
    with room_for(segment.stat().st_size + 100):
        detail = problem(await world.predict(event_timestamp=noon()), 503)["detail"]
        assert "the log cannot be written" in detail
        assert str(settings.home) not in detail  # where things lie here is no caller's business
    answered.append((await world.predict(event_timestamp=noon())).json()["prediction_id"])
    whole = [line for line in segment.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["prediction_id"] for line in whole] == answered


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: to the writer a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


async def test_the_index_and_the_openapi_document(world: World) -> None:
    assert (await world.client.get("/")).json()["models"] == [MODEL]
    document = (await world.client.get("/openapi.json")).json()
    assert document["components"]["schemas"]["PredictRequest"]["examples"]


async def test_the_documentation_is_served_from_here_alone(world: World) -> None:
    page = await world.client.get("/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    named = re.findall(r'(?:src|href|url)(?:=|: )["\']([^"\']+)', page.text)
    assert len(named) == 4
    for name in named:
        assert (await world.client.get(f"/{name}")).status_code == 200, name
    assert (await world.client.get("/redoc")).status_code == 404  # FastAPI's, which names a CDN
