"""What MLflow and Dagster keep of a search: every epoch of every trial, and of its end the best epoch alone."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import dagster as dg
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from sklearn.metrics import accuracy_score, f1_score

from mlops_assets.lineage.loop import Loop
from mlops_assets.lineage.trial_log import TrialLog
from mlops_assets.resources.mlflow_store import connect
from mlops_assets.resources.tracking import TrackedRun, Tracking, run_identity
from mlops_assets.spec import DataSpec
from mlops_assets.training.fit import EpochMetrics, Fitted, TrialConfig
from mlops_assets.training.search import search
from tests.lineage.world import loop_in
from tests.training import tiny
from tests.training.factories import examples, tiny_encoder

pytestmark = pytest.mark.slow  # a real tracking store

# Labels that are hard to tell apart: the last epoch of a trial that stops early is not its best.
TRAIN, VALIDATION = examples(200, seed=1, noise=2.0), examples(150, seed=2, noise=2.0)
CONFIGS = tuple(
    TrialConfig(learning_rate=0.03, batch_size=32, epochs=20, dropout=dropout, early_stopping_epochs=2)
    for dropout in (0.0, 0.3)
)

T = TypeVar("T")


@dataclass(frozen=True)
class Told:
    """A search that was logged, and the trials it told of."""

    client: MlflowClient
    parent: str
    trials: tuple[Fitted, ...]
    lines: tuple[str, ...]

    def run(self, trial: Fitted) -> Run:
        """The one nested run of a trial."""
        experiment = self.client.get_experiment_by_name("m").experiment_id
        nested = self.client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{self.parent}'")
        (run,) = [run for run in nested if run.info.run_name == trial.config.name]
        return run

    def history(self, trial: Fitted, metric: str) -> list[tuple[int, float]]:
        """What a metric was, by step."""
        points = self.client.get_metric_history(self.run(trial).info.run_id, metric)
        return [(point.step, point.value) for point in points]


def loop_with_registry(home: Path, schema: Path) -> Loop:
    shutil.copytree(schema, home / "mlflow")
    return loop_in(home, data=DataSpec(labels=tiny.LABELS))


def logged(loop: Loop, instance: dg.DagsterInstance, body: Callable[[TrialLog, TrackedRun], T]) -> T:
    """Run `body` in an asset, with a log that is open meanwhile and the run of the whole search."""
    made: list[T] = []

    @dg.asset
    def trials(context: dg.AssetExecutionContext) -> None:
        tracking = Tracking(loop.settings)
        with (
            tracking.run("training", run_identity(context), model=loop.model) as run,
            TrialLog(loop, context, tracking, run, VALIDATION) as log,
        ):
            made.append(body(log, run))

    dg.materialize([trials], instance=instance)
    return made[0]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, mlflow_schema: Path) -> Told:
    loop = loop_with_registry(tmp_path_factory.mktemp("home"), mlflow_schema)
    encoder = tiny_encoder(tiny.write_encoder(tmp_path_factory.mktemp("encoder")))
    instance = dg.DagsterInstance.ephemeral()
    ended: list[Fitted] = []

    def searched(log: TrialLog, run: TrackedRun) -> str:
        def on_trial(fitted: Fitted) -> None:
            log.trial(fitted)
            ended.append(fitted)

        search(TRAIN, VALIDATION, CONFIGS, encoder, len(tiny.LABELS), on_epoch=log.epoch, on_trial=on_trial)
        return run.id

    parent = logged(loop, instance, searched)
    (run,) = instance.get_runs()
    lines = tuple(entry.user_message for entry in instance.all_logs(run.run_id))
    return Told(connect(loop.settings), parent, tuple(ended), lines)


def test_every_trial_is_a_finished_run_within_that_of_the_search(told: Told) -> None:
    assert [trial.config for trial in told.trials] == list(CONFIGS)
    for trial in told.trials:
        run = told.run(trial)
        assert run.info.status == "FINISHED"
        assert run.data.params == {name: str(value) for name, value in asdict(trial.config).items()}
        assert run.data.tags["trial"] == trial.config.name
        assert run.data.tags["dagster_run_id"] == told.client.get_run(told.parent).data.tags["dagster_run_id"]


@pytest.mark.parametrize(
    ("metric", "figure"),
    [
        ("train_loss", "train_loss"),
        ("validation_loss", "validation_loss"),
        ("validation_f1_weighted", "f1_weighted"),
        ("validation_accuracy", "accuracy"),
    ],
)
def test_every_epoch_is_a_step(told: Told, metric: str, figure: str) -> None:
    for trial in told.trials:
        assert told.history(trial, metric) == [(epoch.epoch, getattr(epoch, figure)) for epoch in trial.history]


def test_the_end_is_that_of_the_best_epoch_though_others_followed(told: Told) -> None:
    assert any(trial.history[-1].f1_weighted < trial.best.f1_weighted for trial in told.trials)
    for trial in told.trials:
        final = told.run(trial).data.metrics
        assert final["best_epoch"] == trial.best.epoch
        assert final["f1_weighted"] == max(value for _, value in told.history(trial, "validation_f1_weighted"))
        assert final["accuracy"] == dict(told.history(trial, "validation_accuracy"))[trial.best.epoch]
        assert final["loss"] == pytest.approx(trial.best.validation_loss, abs=1e-6)


def test_the_end_is_that_of_the_answers_in_the_confusion_matrix(told: Told) -> None:
    for trial in told.trials:
        truth, answers = VALIDATION.labels, trial.validation_logits.argmax(axis=1)
        per_label = f1_score(truth, answers, average=None)
        expected = {
            "accuracy": accuracy_score(truth, answers),
            "f1_weighted": f1_score(truth, answers, average="weighted"),
            "f1_macro": f1_score(truth, answers, average="macro"),
            **{f"f1_{label}": value for label, value in zip(tiny.LABELS, per_label, strict=True)},
        }
        final = told.run(trial).data.metrics
        assert {name: final[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["accuracy", "f1_weighted", "f1_macro", "f1_refund", "best_epoch"])
def test_what_is_of_the_best_epoch_is_logged_once(told: Told, metric: str) -> None:
    for trial in told.trials:
        assert len(told.history(trial, metric)) == 1


def test_the_learning_curve_and_the_confusion_matrix_can_be_seen(told: Told) -> None:
    for trial in told.trials:
        kept = told.client.list_artifacts(told.run(trial).info.run_id, "figures")
        assert {file.path for file in kept} == {"figures/learning_curve.png", "figures/confusion_matrix.png"}
        assert all(file.file_size > 0 for file in kept)


def test_every_epoch_is_a_line_in_the_log_of_dagster(told: Told) -> None:
    for trial in told.trials:
        lines = [line for line in told.lines if line.startswith(f"{trial.config.name} epoch ")]
        assert len(lines) == len(trial.history)
        for line, epoch in zip(lines, trial.history, strict=True):
            assert line.endswith(f"weighted F1 {epoch.f1_weighted:.4f}")


def test_a_trial_that_breaks_off_is_a_failed_run_with_the_epochs_it_had(
    tmp_path: Path, mlflow_schema: Path, instance: dg.DagsterInstance
) -> None:
    loop = loop_with_registry(tmp_path, mlflow_schema)
    (config, _) = CONFIGS

    def breaks(log: TrialLog, _: TrackedRun) -> None:
        log.epoch(config, EpochMetrics(1, 1.5, 1.2, 0.5, 0.4, seconds=0.1))
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        logged(loop, instance, breaks)
    client = connect(loop.settings)
    runs = client.search_runs([client.get_experiment_by_name("m").experiment_id])
    assert {(run.info.run_name, run.info.status) for run in runs} == {("training", "FAILED"), (config.name, "FAILED")}
    (trial,) = [run for run in runs if run.info.run_name == config.name]
    assert trial.data.metrics["validation_f1_weighted"] == 0.4
    assert "f1_weighted" not in trial.data.metrics
