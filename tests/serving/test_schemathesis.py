"""The endpoint against its own OpenAPI document: whatever fits it, or nearly does, is answered as it says."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mlops_assets.resources.registry import Registry
from mlops_assets.serving.http import build_app
from tests.serving.factories import MODEL, register, write_artefact
from tests.serving.in_process import World
from tests.serving.world import settings_in

pytestmark = pytest.mark.slow  # some thousand requests
EXAMPLES = 100  # of each route and method
ROUTES = (
    *("/", "/health", "/metrics", "/clock", "/rollout", "/predict", "/predict/batch", "/feedback"),
    *(f"/models/{{model}}/{what}" for what in ("predict", "predict/batch", "feedback", "rollout", "rollout/page")),
    *("/models/{model}/rollout/seal", "/models/{model}/rollout/abort", "/v2", "/v2/health/live", "/v2/health/ready"),
    *(f"/v2/models/{{model}}{what}" for what in ("", "/ready", "/infer")),
    *(f"/v2/models/{{model}}/versions/{{version}}{what}" for what in ("", "/ready", "/infer")),
)
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, mlflow_schema: Path) -> World:
    """Version 1 in production."""
    home = tmp_path_factory.mktemp("fuzzed")
    shutil.copytree(mlflow_schema, home / "mlflow")
    settings = settings_in(home)
    folder = home / "artefact"
    register(Registry(settings), folder, write_artefact(folder, "refund"), alias="production")
    world = World(settings)
    asyncio.run(world.settle())
    return world


def kinds(operation: schemathesis.APIOperation) -> list[GenerationMode]:
    """What the schema allows, and, where there is anything to break, what it does not."""
    nothing = not operation.body and not operation.path_parameters
    return [GenerationMode.POSITIVE] if nothing else [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


@pytest.mark.parametrize("path", ROUTES)
def test_no_request_is_answered_with_a_5xx_or_what_is_not_documented(world: World, path: str) -> None:
    api = schemathesis.openapi.from_asgi("/openapi.json", build_app(world.service)).include(path=path)
    headers = {"Authorization": f"Bearer {world.settings.admin_secret()}"}
    for operation in (found.ok() for found in api.get_all_operations()):

        @hypothesis.settings(max_examples=EXAMPLES, derandomize=True)
        @hypothesis.given(st.one_of(map(operation.as_strategy, kinds(operation))), st.booleans())
        def is_answered_as_documented(case: schemathesis.Case, known: bool) -> None:
            if known and "model" in case.path_parameters:
                case.path_parameters["model"] = MODEL  # hardly to be met by chance
            case.call_and_validate(headers=headers, checks=CHECKS)

        is_answered_as_documented()


def test_no_route_is_left_out(world: World) -> None:
    assert set(build_app(world.service).openapi()["paths"]) == set(ROUTES)
