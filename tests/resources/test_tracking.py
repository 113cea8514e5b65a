"""Tracking finds its run again, keeps runs apart in one process, and ends each with its true status."""

from pathlib import Path

import dagster as dg
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Run

from mlops_assets.resources.mlflow_store import connect
from mlops_assets.resources.registry import Registry
from mlops_assets.resources.tracking import Dataset, Tracking, run_identity
from mlops_assets.settings import Settings
from mlops_assets.spec import ModelSpec
from tests.resources.conftest import Exporter

pytestmark = pytest.mark.slow  # real tracking stores

MODEL = "intent_classifier"
TAGS = {"dagster_run_id": "7f3a", "asset": "intent_classifier/candidate"}


@pytest.fixture
def tracking(settings: Settings) -> Tracking:
    return Tracking(settings)


@pytest.fixture
def client(settings: Settings) -> MlflowClient:
    return connect(settings)


def all_runs(client: MlflowClient) -> list[Run]:
    return list(client.search_runs([client.get_experiment_by_name(MODEL).experiment_id]))


def test_a_retried_step_goes_on_in_the_run_it_began(tracking: Tracking, client: MlflowClient) -> None:
    with pytest.raises(RuntimeError), tracking.run("candidate", TAGS, model=MODEL) as first:
        raise RuntimeError("out of memory")
    assert client.get_run(first.id).info.status == "FAILED"
    with tracking.run("candidate", TAGS, model=MODEL) as second:
        assert client.get_run(second.id).info.status == "RUNNING"
        second.log_params({"seed": 1})
    assert second.id == first.id
    assert client.get_run(first.id).info.status == "FINISHED"
    assert len(all_runs(client)) == 1


def test_an_interrupted_run_is_killed_not_failed(tracking: Tracking, client: MlflowClient) -> None:
    with pytest.raises(KeyboardInterrupt), tracking.run("candidate", TAGS, model=MODEL) as run:
        raise KeyboardInterrupt
    assert client.get_run(run.id).info.status == "KILLED"


def test_trials_are_nested_with_their_figures_per_epoch(tracking: Tracking, client: MlflowClient) -> None:
    with tracking.run("search", TAGS, model=MODEL) as search:
        for number in range(3):
            with tracking.run(f"trial-{number}", TAGS, model=MODEL, parent=search) as trial:
                trial.log_params({"dropout": number / 10})
                for epoch in (1, 2, 3):
                    trial.log_metrics({"f1_weighted": 0.9 + epoch / 100}, step=epoch)
    run = client.get_run(trial.id)
    assert run.data.tags["mlflow.parentRunId"] == search.id
    assert [point.step for point in client.get_metric_history(trial.id, "f1_weighted")] == [1, 2, 3]
    assert len(all_runs(client)) == 4


def test_a_figure_of_a_label_is_kept_however_the_label_is_spelt(tracking: Tracking, client: MlflowClient) -> None:
    labels = ("order status", "Rücksendung", "退货", "can't pay", "billing & refunds", "returns/", "🙂?")
    with tracking.run("training", TAGS, model=MODEL) as run:
        run.log_metrics({f"f1_{label}": number for number, label in enumerate(labels)})
    spelt = ("order status", "Rücksendung", "退货", "can_t pay", "billing _ refunds", "returns_", "__")
    assert client.get_run(run.id).data.metrics == {f"f1_{label}": number for number, label in enumerate(spelt)}


def test_a_run_holds_what_the_field_expects(
    tracking: Tracking, client: MlflowClient, registry: Registry, exporter: Exporter
) -> None:
    digest = "ab" * 32
    folder, artefact_digest = exporter.export()
    with tracking.run("candidate", TAGS, model=MODEL) as run:
        run.log_figure(Figure(), "figures/confusion_matrix.png")
        run.log_dataset(Dataset("training_set", digest, Path("/data/x.parquet"), 12, {"text": "string"}, "training"))
        spec_digest = run.log_spec(ModelSpec(name=MODEL))
        commit = run.log_environment()
        packed = run.log_model(folder, artefact_digest)
    logged = client.get_run(run.id)
    (stated,) = logged.inputs.dataset_inputs
    assert (stated.dataset.name, stated.tags[0].value) == ("training_set", "training")
    assert digest in stated.dataset.profile
    assert {"figures", "spec.yaml", "environment"} <= {f.path for f in client.list_artifacts(run.id)}
    assert (logged.data.tags["spec_digest"], logged.data.tags["code_commit"]) == (spec_digest, commit)
    assert [model.model_id for model in logged.outputs.model_outputs] == [packed.uri.removeprefix("models:/")]
    assert client.get_logged_model(packed.uri.removeprefix("models:/")).status == "READY"
    version = registry.register(MODEL, run.id, packed.uri, artefact_digest, "", {})
    assert (version.run_id, version.artefact_digest) == (run.id, artefact_digest)
    assert (version.artefact / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()


def test_two_runs_of_one_dagster_asset_stay_apart(tracking: Tracking, client: MlflowClient) -> None:
    @dg.asset
    def candidate(context: dg.AssetExecutionContext) -> None:
        for name in ("one", "two"):
            with tracking.run(name, run_identity(context), model=MODEL) as run:
                run.log_metrics({"accuracy": 0.9})

    result = dg.materialize([candidate], instance=dg.DagsterInstance.ephemeral())
    assert result.success
    assert {run.info.run_name for run in all_runs(client)} == {"one", "two"}
    assert {run.data.tags["dagster_run_id"] for run in all_runs(client)} == {result.run_id}
