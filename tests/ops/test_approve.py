"""A person approves a version: only one that waits for it, and under a name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlops_assets.ops.approve import ApprovalRefused, approve_version
from mlops_assets.resources.dagster_api import DagsterUnavailable
from mlops_assets.settings import Settings
from tests.lineage.guard import Rollout, served
from tests.serving.world import free_port


@pytest.fixture
def guard(tmp_path_factory: pytest.TempPathFactory) -> Rollout:
    from mlops_assets.resources.registry import Registry

    settings = Settings(home=tmp_path_factory.mktemp("home"), _env_file=None)
    return Rollout(Registry(settings), "m", version=3, phase="waiting_promotion", reason="fit for promotion")


@pytest.fixture
def settings(guard: Rollout) -> Iterator[Settings]:
    """An endpoint that answers, and no Dagster."""
    with served(guard) as port:
        yield guard.registry.settings.model_copy(update={"serve_port": port, "dagster_port": free_port()})


def test_only_the_version_that_waits_can_be_approved(settings: Settings, guard: Rollout) -> None:
    with pytest.raises(ApprovalRefused, match="no rollout of version 2 of m: the newest one is of version 3"):
        approve_version(settings, "m", 2, by="carla")
    guard.phase = "progressing"
    with pytest.raises(ApprovalRefused, match="version 3 of m does not wait for a person: it is progressing"):
        approve_version(settings, "m", 3, by="carla")


def test_nobody_cannot_approve(settings: Settings) -> None:
    with pytest.raises(ApprovalRefused, match="name of who agrees"):
        approve_version(settings, "m", 3, by=" ")


def test_an_approval_that_dagster_did_not_take_is_an_error(settings: Settings) -> None:
    with pytest.raises(DagsterUnavailable, match="does not answer"):
        approve_version(settings, "m", 3, by="carla")
