"""A person approves a version: only one that waits for it, and under a name."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from mlops_assets.lineage.release import approval_of
from mlops_assets.ops.approve import ApprovalRefused, approve_version
from mlops_assets.ports import free_port
from mlops_assets.resources.dagster_api import DagsterUnavailable
from mlops_assets.settings import Settings
from tests.lineage.guard import Rollout, served
from tests.lineage.world import loop_in
from tests.resources.webserver import webserver


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


@pytest.mark.slow
def test_what_is_approved_is_what_the_graph_reads(settings: Settings) -> None:
    (settings.home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(settings.home)) as instance, webserver(settings):
        approve_version(settings, "m", 3, by="carla")
        loop = loop_in(settings.home)
        approval = approval_of(loop, instance, 3)
        assert approval is not None
        assert approval["by"] == "carla"
        assert approval_of(loop, instance, 2) is None
