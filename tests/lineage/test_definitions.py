"""The graph that Dagster loads: whole, explained, and running by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from mlops_assets.monitoring.catalogue import CATALOGUE
from mlops_assets.settings import PROJECT_ROOT
from tests.lineage.world import definitions, loop_in

NAMES = {
    *("messages", "validated_messages", "quarantine"),
    *("customer_features", "online_features"),
    *("training_set", "test_set", "training_features", "trials", "candidate"),
    *("evaluation", "registered_version", "canary", "production"),
    *("predictions", "labelled_predictions", "quality", "retrain_decision", "decision_ledger"),
    *("feature_drift", "prediction_drift", "embedding_drift"),
}
EDGES = [  # the picture in the design
    ("messages", "validated_messages"),
    ("messages", "quarantine"),
    ("validated_messages", "training_set"),
    ("validated_messages", "test_set"),
    ("customer_features", "online_features"),
    ("customer_features", "training_features"),
    ("training_set", "training_features"),
    ("training_features", "trials"),
    ("trials", "candidate"),
    ("candidate", "evaluation"),
    ("test_set", "evaluation"),
    ("evaluation", "registered_version"),
    ("registered_version", "canary"),
    ("canary", "production"),
    ("predictions", "labelled_predictions"),
    ("labelled_predictions", "quality"),
    ("labelled_predictions", "feature_drift"),
    ("labelled_predictions", "prediction_drift"),
    ("labelled_predictions", "embedding_drift"),
    ("feature_drift", "retrain_decision"),
    ("quality", "retrain_decision"),
    ("retrain_decision", "training_set"),
    ("retrain_decision", "decision_ledger"),
]
BLOCKING = {
    "contract of validated_messages",
    "contract of customer_features",
    "leakage of test_set",
    "gate of evaluation",
}


@pytest.fixture(scope="module")
def defs(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return definitions(loop_in(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def graph(defs: dg.Definitions) -> AssetGraph:
    return defs.resolve_asset_graph()


@pytest.mark.slow
def test_everything_in_it_can_be_loaded(defs: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(defs)


def test_it_has_the_assets_of_the_picture_and_no_others(graph: AssetGraph) -> None:
    assert {key.path[-1] for key in graph.get_all_asset_keys()} == NAMES
    assert {key.path[0] for key in graph.get_all_asset_keys()} == {"m"}


def test_it_has_no_cycle(graph: AssetGraph) -> None:
    assert len(graph.toposorted_asset_keys) == len(NAMES)


@pytest.mark.parametrize(("upstream", "downstream"), EDGES)
def test_it_has_the_edges_of_the_picture(graph: AssetGraph, upstream: str, downstream: str) -> None:
    assert dg.AssetKey(["m", upstream]) in graph.get(dg.AssetKey(["m", downstream])).parent_keys


def test_every_asset_explains_itself(graph: AssetGraph) -> None:
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.group_name.startswith("m_"), key
        assert node.owners == ["team:support"], key
        assert node.kinds, key


def test_every_check_explains_itself(graph: AssetGraph) -> None:
    unexplained = [str(key) for key in graph.asset_check_keys if not graph.get_check_spec(key).description]
    assert not unexplained


def test_the_checks_that_stop_the_line_are_blocking(graph: AssetGraph) -> None:
    specs = [graph.get_check_spec(key) for key in graph.asset_check_keys]
    assert {f"{spec.name} of {spec.asset_key.path[-1]}" for spec in specs if spec.blocking} == BLOCKING


def test_every_monitor_is_a_check_that_states_cadence_window_and_owner(graph: AssetGraph) -> None:
    specs = [graph.get_check_spec(key) for key in graph.asset_check_keys]
    monitors = {spec.name: spec for spec in specs if "cadence" in (spec.metadata or {})}
    assert set(monitors) == set(CATALOGUE)
    for name, spec in monitors.items():
        assert (spec.metadata or {}) == {
            "cadence": CATALOGUE[name].cadence,
            "window": CATALOGUE[name].window,
            "owner": "team:support",
        }


def test_a_production_version_that_is_too_old_shows_as_stale(defs: dg.Definitions) -> None:
    (spec,) = (spec for spec in defs.resolve_all_asset_specs() if spec.key.path[-1] == "production")
    assert spec.freshness_policy == dg.FreshnessPolicy.time_window(timedelta(days=30))


def test_what_is_daily_by_nature_is_partitioned_by_day(graph: AssetGraph) -> None:
    daily = {key.path[-1] for key in graph.get_all_asset_keys() if graph.get(key).is_partitioned}
    assert daily == {
        *("validated_messages", "quarantine", "predictions", "labelled_predictions", "quality"),
        *("feature_drift", "prediction_drift", "embedding_drift"),
    }


def test_every_sensor_and_schedule_runs_by_default(defs: dg.Definitions) -> None:
    sensors = {sensor.name: sensor.default_status for sensor in defs.sensors or ()}
    names = ("inbox", "features", "rollout", "days", "automation", "retrain_when_due", "alerts")
    assert set(sensors) == {f"m_{name}" for name in names}
    assert set(sensors.values()) == {dg.DefaultSensorStatus.RUNNING}
    assert {s.name: s.default_status for s in defs.schedules or ()} == {
        "m_regular_retrain": dg.DefaultScheduleStatus.RUNNING
    }


def test_the_regular_retrain_asks_the_policy_on_the_declared_days(defs: dg.Definitions) -> None:
    schedule = defs.resolve_schedule_def("m_regular_retrain")
    assert schedule.cron_schedule == "0 2 * * 1"
    context = dg.build_schedule_context(instance=dg.DagsterInstance.ephemeral())
    (request,) = schedule.evaluate_tick(context).run_requests or []
    assert dg.validate_run_config(defs.resolve_job_def("m_decide"), request.run_config)


def test_two_models_live_side_by_side(tmp_path: Path) -> None:
    one, other = loop_in(tmp_path), loop_in(tmp_path)
    renamed = type(other)(other.spec.model_copy(update={"name": "n"}), other.settings)
    both = dg.Definitions.merge(definitions(one), definitions(renamed))
    dg.Definitions.validate_loadable(both)
    assert len(list(both.resolve_all_asset_specs())) == 2 * len(NAMES)


LOAD = """
from mlops_assets.definitions import defs
print(sorted({key.path[0] for key in defs.resolve_asset_graph().get_all_asset_keys()}))
"""


def load_in_a_process(models: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """What `dagster` does with the code location, with other models."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD],
        env={**os.environ, "MLOPS_MODELS_DIR": str(models), "MLOPS_HOME": str(home)},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_declared_models_load_as_components() -> None:
    from mlops_assets.definitions import defs as loaded

    dg.Definitions.validate_loadable(loaded)
    assert dg.AssetKey(["intent_classifier", "production"]) in loaded.resolve_asset_graph().get_all_asset_keys()


@pytest.mark.slow
def test_the_models_of_another_folder_load_in_their_place(tmp_path: Path) -> None:
    (tmp_path / "models" / "tickets").mkdir(parents=True)
    (tmp_path / "models" / "tickets" / "defs.yaml").write_text("type: x\nattributes: {name: tickets}\n")
    said = load_in_a_process(tmp_path / "models", tmp_path)
    assert said.stdout.splitlines()[-1] == "['tickets']"


@pytest.mark.slow
def test_a_broken_yaml_names_file_line_field_and_what_is_allowed(tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(PROJECT_ROOT / "mlops_assets" / "models" / "intent_classifier", models / "intent_classifier")
    yaml = models / "intent_classifier" / "defs.yaml"
    lines = yaml.read_text().splitlines()
    wrong = next(number for number, line in enumerate(lines) if "min_f1" in line)
    lines[wrong] = "    min_f2: 0.92"
    yaml.write_text("\n".join(lines))

    said = load_in_a_process(models, tmp_path)

    assert said.returncode != 0
    assert f"{yaml}:{wrong + 1}: gate.min_f2: unknown field; allowed here: " in said.stderr
    assert "min_f1" in said.stderr.splitlines()[-1]
