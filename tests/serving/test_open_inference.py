"""The Open Inference Protocol as a client sees it: its shapes, its errors, and an unmodified client of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from mlops_assets.resources.registry import Registry
from mlops_assets.serving.tensors import HEADER_LENGTH
from mlops_assets.settings import Settings
from mlops_assets.tokens import hash_of
from tests.serving.factories import LABELS, MODEL, register, write_artefact
from tests.serving.in_process import World, noon, serving
from tests.serving.world import Endpoint, new_endpoint, settings_in

pytestmark = pytest.mark.slow  # a whole endpoint in process

INFER = f"/v2/models/{MODEL}/infer"


def tensor(*values: str, name: str = "text") -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [len(values)], "data": list(values)}


def error(reply: httpx.Response, status: int) -> str:
    """The text of an error in the protocol's shape."""
    assert reply.status_code == status, reply.text
    assert list(reply.json()) == ["error"]
    return str(reply.json()["error"])


@pytest.mark.anyio
async def test_json_tensors_in_json_tensors_out(settings: Settings) -> None:
    world = await serving(settings)
    body = {"id": "7", "inputs": [tensor("one", "two"), tensor("C-1", "", name="customer_id")]}
    reply = (await world.client.post(INFER, json=body)).json()
    assert (reply["id"], reply["model_name"], reply["model_version"]) == ("7", MODEL, "1")
    outputs = {output["name"]: output for output in reply["outputs"]}
    assert outputs["label"]["data"] == ["refund", "refund"]
    assert outputs["probabilities"]["shape"] == [2, len(LABELS)]
    assert outputs["model_version"]["data"] == [1, 1]
    assert len(set(outputs["prediction_id"]["data"])) == 2


@pytest.mark.anyio
async def test_only_the_wanted_outputs_are_given(settings: Settings) -> None:
    world = await serving(settings)
    body = {"inputs": [tensor("hi")], "outputs": [{"name": "prediction_id"}, {"name": "label"}]}
    reply = (await world.client.post(INFER, json=body)).json()
    assert [output["name"] for output in reply["outputs"]] == ["prediction_id", "label"]
    assert "id" not in reply


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"inputs": []}, "'text' is missing"),
        ({"inputs": [tensor("hi"), tensor("hi")]}, "twice"),
        ({"inputs": [tensor("hi", name="txt")]}, "no input 'txt'"),
        ({"inputs": [{**tensor("hi"), "shape": [2]}]}, "shape"),
        ({"inputs": [{**tensor("hi"), "datatype": "FP32"}]}, "BYTES"),
        ({"inputs": [tensor("hi"), tensor("a", "b", name="customer_id")]}, "customer_id"),
        ({"inputs": [tensor(*["hi"] * 65)]}, "64"),
        ({"inputs": [tensor("hi")], "outputs": [{"name": "logits"}]}, "no output 'logits'"),
        ({"inputs": [tensor("hi")], "parameters": {"sequence_id": 3}}, "sequence_id"),
        ({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1]}]}, "data"),
    ],
)
async def test_a_request_that_makes_no_sense_is_told_why(settings: Settings, body: Any, says: str) -> None:
    world = await serving(settings)
    assert says in error(await world.client.post(INFER, json=body), 400)


@pytest.mark.anyio
@pytest.mark.parametrize("packed", [b"\x09\0\0\0hi", b"\x02\0", b"\x02\0\0\0\xff\xff", b""])
async def test_binary_values_that_do_not_fit_are_refused(settings: Settings, packed: bytes) -> None:
    world = await serving(settings)
    head = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(packed)}}
    text = json.dumps({"inputs": [head]}).encode()
    for length, body in ((str(len(text)), text + packed), ("99999", text), ("x", text), ("-1", text)):
        headers = {"Inference-Header-Content-Length": length}
        error(await world.client.post(INFER, content=body, headers=headers), 400)


@pytest.mark.anyio
async def test_brackets_in_a_binary_message_are_no_depth(settings: Settings) -> None:
    world = await serving(settings)
    text = b"[" * 17
    packed = len(text).to_bytes(4, "little") + text
    head = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(packed)}}
    body = json.dumps({"inputs": [head]}).encode()
    reply = await world.client.post(INFER, content=body + packed, headers={HEADER_LENGTH: str(len(body))})
    assert reply.status_code == 200, reply.text
    assert "16 levels" in error(await world.client.post(INFER, content=text, headers={HEADER_LENGTH: "17"}), 400)


@pytest.mark.anyio
async def test_a_row_that_cannot_be_answered_fails_the_request_and_is_named(settings: Settings) -> None:
    world = await serving(settings)
    reply = await world.client.post(INFER, json={"inputs": [tensor("hi", "x" * 10_000)]})
    assert error(reply, 422).startswith("row 1: text")
    error(await world.client.post(INFER, content=b"x" * 70_000), 413)


@pytest.mark.anyio
async def test_of_a_request_with_a_faulty_row_no_row_is_answered_and_logged(settings: Settings) -> None:
    world = await serving(settings)
    for rows in ([tensor("hi", "x" * 10_000)], [tensor("hi", "ho"), tensor("C-1", "C" * 200, name="customer_id")]):
        assert error(await world.client.post(INFER, json={"inputs": rows}), 422).startswith("row 1: ")
    assert not list(settings.model_home(MODEL).predictions.glob("*"))


@pytest.mark.anyio
async def test_what_the_protocol_has_and_this_endpoint_lacks_is_refused_in_its_shape(settings: Settings) -> None:
    world = await serving(settings)
    assert "no route" in error(await world.client.get(f"/v2/models/{MODEL}/config"), 404)
    assert "no route" in error(await world.client.post("/v2/repository/index"), 404)
    error(await world.client.get(INFER), 405)


@pytest.mark.anyio
async def test_only_the_stable_version_is_asked_by_its_number(settings: Settings) -> None:
    world = await serving(settings)
    folder = settings.home / "canary"
    register(Registry(settings), folder, write_artefact(folder, "query"), alias="canary")
    await world.settle()
    await world.settle()
    body = {"inputs": [tensor(*["hi"] * 40), tensor(*map(str, range(40)), name="customer_id")]}
    split = (await world.client.post(INFER, json=body)).json()
    assert "model_version" not in split
    assert set(split["outputs"][2]["data"]) == {1, 2}
    pinned = (await world.client.post(f"/v2/models/{MODEL}/versions/1/infer", json=body)).json()
    assert set(pinned["outputs"][0]["data"]) == {"refund"}
    for route in ("", "/ready"):
        assert (await world.client.get(f"/v2/models/{MODEL}/versions/1{route}")).status_code == 200
        for version in (2, 9, "x"):
            assert "version 1 does" in error(
                await world.client.get(f"/v2/models/{MODEL}/versions/{version}{route}"), 404
            )
    error(await world.client.post(f"/v2/models/{MODEL}/versions/2/infer", json=body), 404)
    error(await world.client.get("/v2/models/none"), 404)


@pytest.mark.anyio
async def test_without_a_version_it_is_live_and_not_ready(settings: Settings) -> None:
    world = World(settings)
    await world.settle()
    await world.admin("/clock", {"now": noon()})
    assert (await world.client.get("/v2/health/live")).json() == {"live": True}
    assert (await world.client.get("/v2/health/ready")).status_code == 503
    assert (await world.client.get(f"/v2/models/{MODEL}/ready")).status_code == 503
    assert "production" in error(await world.client.post(INFER, json={"inputs": [tensor("hi")]}), 503)


@pytest.mark.anyio
async def test_inference_needs_the_predict_token_when_one_is_set(settings: Settings) -> None:
    world = await serving(settings_in(settings.home, predict_token=hash_of("open sesame")))
    error(await world.client.post(INFER, json={"inputs": [tensor("hi")]}), 401)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A real server whose production version answers "refund"."""
    endpoint = new_endpoint(tmp_path_factory.mktemp("protocol"))
    endpoint.publish(lambda folder: write_artefact(folder, "refund"), "production")
    with endpoint.running():
        endpoint.admin("/clock", {"now": noon()})
        yield endpoint


@pytest.mark.timeout(600)
@pytest.mark.parametrize("binary", [True, False])
def test_an_unmodified_triton_client_is_answered(endpoint: Endpoint, binary: bool) -> None:
    triton = pytest.importorskip("tritonclient.http")
    client = triton.InferenceServerClient(endpoint.settings.endpoint.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready(MODEL, "9")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert client.get_model_metadata(MODEL)["versions"] == ["1"]
    texts = np.array(["where is my parcel?", "我的包裹在哪里？", "bye"], dtype=object)
    given = triton.InferInput("text", [3], "BYTES")
    given.set_data_from_numpy(texts, binary_data=binary)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities")]
    for result in (
        client.infer(MODEL, [given], request_id="r1"),
        client.infer(MODEL, [given], request_id="r1", outputs=wanted, model_version="1"),
    ):
        assert result.get_response()["id"] == "r1"
        labels = [value.decode() if isinstance(value, bytes) else value for value in result.as_numpy("label")]
        assert labels == ["refund"] * 3
        probabilities = result.as_numpy("probabilities")
        assert (probabilities.shape, probabilities.dtype) == ((3, len(LABELS)), np.float32)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert {record["text"] for record in endpoint.predictions()[-3:]} == set(texts)
    with pytest.raises(triton.InferenceServerException, match="does not answer by its number") as refused:
        client.infer(MODEL, [given], model_version="9")
    assert refused.value.status() == "404"
    client.close()
