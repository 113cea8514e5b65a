"""The door to Dagster, against a real webserver: what ran, what it found, and asking for a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.ports import free_port
from mlops_assets.resources.dagster_api import DagsterApi, DagsterUnavailable
from mlops_assets.settings import Settings
from tests.resources.webserver import webserver

MODEL = "intent_classifier"
CHECK = dg.AssetCheckSpec("gate", asset=dg.AssetKey([MODEL, "evaluation"]))


@dg.asset(key=CHECK.asset_key, check_specs=[CHECK])
def evaluation() -> dg.MaterializeResult:
    return dg.MaterializeResult(
        metadata={
            "rows": 12,
            "f1": 0.95,
            "name": "tiny",
            "list": ["a"],
            "ok": True,
            "where": dg.MetadataValue.url("u"),
        },
        check_results=[
            dg.AssetCheckResult(check_name="gate", passed=False, description="too slow", metadata={"verdict": "fail"})
        ],
    )


def test_nobody_at_the_address_is_unavailable(tmp_path: Path) -> None:
    api = DagsterApi(Settings(home=tmp_path, dagster_port=1, _env_file=None))
    with pytest.raises(DagsterUnavailable, match=r"http://127\.0\.0\.1:1 does not answer"):
        api.runs()


def test_pages_for_people_are_named_without_asking(tmp_path: Path) -> None:
    api = DagsterApi(Settings(home=tmp_path, dagster_port=3210, _env_file=None))
    assert api.asset_url("m", "gate") == "http://127.0.0.1:3210/assets/m/gate"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterApi]:
    """A real webserver over the project's code location, after one run of an asset with a check."""
    home = tmp_path_factory.mktemp("dagster")
    settings = Settings(home=home, dagster_port=free_port(), _env_file=None)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        dg.materialize([evaluation], instance=instance, tags={"by": "test"}, raise_on_error=False)
    with webserver(settings):
        yield DagsterApi(settings)


@pytest.mark.slow
def test_a_materialization_comes_with_plain_metadata(api: DagsterApi) -> None:
    (found,) = api.materializations(MODEL, "evaluation")
    assert {name: found.metadata[name] for name in ("rows", "f1", "name", "list", "ok", "where")} == {
        "rows": 12,
        "f1": 0.95,
        "name": "tiny",
        "list": ["a"],
        "ok": True,
        "where": "u",
    }
    assert found.partition is None
    assert api.materializations(MODEL, "production") == []
    assert api.materializations(MODEL, "no_such_asset") == []


@pytest.mark.slow
def test_a_check_says_what_it_found(api: DagsterApi) -> None:
    gate = api.checks(MODEL, "evaluation")["gate"]
    assert (gate["success"], gate["description"]) == (False, "too slow")
    assert gate["metadata"]["verdict"] == "fail"
    assert api.checks(MODEL, "no_such_asset") == {}


@pytest.mark.slow
def test_runs_are_found_by_their_tags(api: DagsterApi) -> None:
    (run,) = api.runs({"by": "test"})
    assert run.finished
    assert run.tags["by"] == "test"
    assert api.runs({"by": "nobody"}) == []


@pytest.mark.slow
def test_a_run_that_dagster_refuses_is_an_error_with_its_reason(api: DagsterApi) -> None:
    with pytest.raises(DagsterUnavailable, match="refused to launch no_such_job"):
        api.launch("no_such_job", config={}, tags={})
    with pytest.raises(DagsterUnavailable, match=f"refused to launch {MODEL}_submit: .*nonsense"):
        api.launch(f"{MODEL}_submit", config={"nonsense": 1}, tags={})


@pytest.mark.slow
def test_a_daemon_that_does_not_run_is_named(api: DagsterApi) -> None:
    assert "SENSOR" in api.unhealthy_daemons()


@pytest.mark.slow
def test_what_happened_outside_is_reported_with_its_metadata(api: DagsterApi) -> None:
    api.report(MODEL, "canary", description="carla agrees", metadata={"version": 3, "by": "carla"})
    (found,) = api.materializations(MODEL, "canary")
    assert dict(found.metadata) == {"version": 3, "by": "carla"}
