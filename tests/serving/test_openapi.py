"""The OpenAPI document as a reader meets it: an example of every request and reply, and each of them true."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mlops_assets.resources.registry import Registry
from mlops_assets.serving.http import build_app
from mlops_assets.serving.problems import MEDIA_TYPE
from tests.serving.factories import register, write_artefact
from tests.serving.in_process import World
from tests.serving.world import settings_in

pytestmark = pytest.mark.slow  # a whole endpoint in process

Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, mlflow_schema: Path) -> World:
    """Version 1 in production."""
    home = tmp_path_factory.mktemp("described")
    shutil.copytree(mlflow_schema, home / "mlflow")
    settings = settings_in(home)
    folder = home / "artefact"
    register(Registry(settings), folder, write_artefact(folder, "refund"), alias="production")
    return World(settings)


@pytest.fixture(scope="module")
def document(world: World) -> dict[str, Any]:
    return build_app(world.service).openapi()


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def examples(document: dict[str, Any], content: dict[str, Any]) -> list[Any]:
    """The examples of one media type, its own or its schema's."""
    own = [content["example"]] if "example" in content else []
    return own or resolved(document, content.get("schema", {})).get("examples", [])


def faults(document: dict[str, Any]) -> list[str]:
    """What has no example, or one that its schema does not allow."""
    found = []
    for method, path, operation in operations(document):
        contents = {status: reply.get("content", {}) for status, reply in operation["responses"].items()}
        if "requestBody" in operation:
            contents["request"] = operation["requestBody"]["content"]
        for where, by_type in contents.items():
            for content in by_type.values() or [{}]:
                given = examples(document, content)
                whole = {**content.get("schema", {}), "components": document["components"]}
                validator = jsonschema.Draft202012Validator(whole)
                if not given or not all(validator.is_valid(example) for example in given):
                    found.append(f"{method} {path}: {where}")
        found += [
            f"{method} {path}: {p['name']}" for p in operation.get("parameters", []) if not p["schema"]["examples"]
        ]
    return found


def test_every_route_has_examples_of_its_request_its_reply_and_its_problems(document: dict[str, Any]) -> None:
    assert faults(document) == []
    for method, path, operation in operations(document):
        assert {"408", "429", "500", "502", "503", "504"} <= set(operation["responses"]), (method, path)
        assert MEDIA_TYPE in operation["responses"]["500"]["content"], (method, path)


def test_a_route_without_an_example_would_be_found(document: dict[str, Any]) -> None:
    lacking = {**document, "paths": {"/new": {"get": {"responses": {"200": {"description": "", "content": {}}}}}}}
    assert faults(lacking) == ["get /new: 200"]


def test_errors_of_the_open_inference_protocol_have_its_shape(document: dict[str, Any]) -> None:
    for _, path, operation in operations(document):
        for status in ("404", "422"):
            if path.startswith("/v2/models") and status in operation["responses"]:
                (content,) = operation["responses"][status]["content"].values()
                assert content["schema"]["required"] == ["error"], path


@pytest.mark.anyio
async def test_every_example_request_is_answered_as_the_document_says(world: World, document: dict[str, Any]) -> None:
    await world.settle()
    headers = {"Authorization": f"Bearer {world.settings.admin_secret()}"}
    answered = {}
    order = sorted(operations(document), key=lambda operation: operation[1] != "/clock")  # the others need the time
    for method, path, operation in order:
        names = {p["name"]: p["schema"]["examples"][0] for p in operation.get("parameters", []) if p["in"] == "path"}
        body = operation.get("requestBody", {"content": {"": {}}})["content"]
        (given,) = (examples(document, content) for content in body.values())
        body = {"json": given[0]} if given else {}
        reply = await world.client.request(method, path.format(**names), headers=headers, **body)
        assert str(reply.status_code) in operation["responses"], (method, path, reply.text)
        answered[f"{method} {path}"] = reply.status_code
    not_now = {route: status for route, status in answered.items() if status >= 300}
    assert not_now == {f"post /models/{{model}}/rollout/{what}": 409 for what in ("seal", "abort")}
