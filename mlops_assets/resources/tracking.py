"""The door to experiment tracking: one MLflow run per (Dagster run, asset), found again when retried.

`dagster-mlflow` is not used: its resource keeps the active run in MLflow's process-wide state, so two
runs in one process (trials, the in-process executor) merge into one, and its import costs 2.8 s of loop
latency. Here every call names its run and every run is ended explicitly. What is worth logging is left
to the caller.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mlops_assets.resources.mlflow_store import connect, exclusive, experiment_id, translated
from mlops_assets.resources.packaging import PackedModel, log_exported
from mlops_assets.resources.provenance import code_commit, environment
from mlops_assets.settings import Settings
from mlops_assets.spec import ModelSpec
from mlops_assets.storage import digest_json

if TYPE_CHECKING:
    import dagster as dg
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

_PARENT = "mlflow.parentRunId"
# In a metric's name, as the name of a label may have it; a slash would be a folder.
_REFUSED = re.compile(r"[^\w.\- :]")
_DIGEST_LENGTH = 36  # what MLflow's schema holds of a dataset digest; the whole one stands in the profile


@dataclass(frozen=True)
class Dataset:
    """One input of a run; `digest` is the snapshot's, `context` says what it was for (training, test)."""

    name: str
    digest: str
    path: Path
    rows: int
    columns: Mapping[str, str]
    context: str


class TrackedRun:
    """One MLflow run. Logging the same again, as a retried step does, changes nothing that is read."""

    def __init__(self, client: MlflowClient, settings: Settings, run_id: str, experiment: str) -> None:
        self.id = run_id
        self._client = client
        self._settings = settings
        self._experiment = experiment

    @property
    def url(self) -> str:
        """The run's page in the MLflow UI."""
        return f"{self._settings.mlflow_url}/#/experiments/{self._experiment}/runs/{self.id}"

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log what was chosen beforehand; a value cannot be changed later."""
        from mlflow.entities import Param

        with translated(self._settings):
            self._client.log_batch(self.id, params=[Param(key, str(value)) for key, value in params.items()])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log figures that were measured; `step` is the epoch. In a name, what MLflow refuses becomes ``_``."""
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        at = get_current_time_millis()
        with translated(self._settings):
            points = [Metric(_REFUSED.sub("_", key), float(value), at, step) for key, value in metrics.items()]
            self._client.log_batch(self.id, metrics=points)

    def log_figure(self, figure: Figure, path: str) -> None:
        """Keep a matplotlib figure, e.g. as ``figures/confusion_matrix.png``."""
        with translated(self._settings):
            self._client.log_figure(self.id, figure, path)

    def log_dataset(self, dataset: Dataset) -> None:
        """State a data set as an input of the run."""
        from mlflow import entities

        stated = entities.Dataset(
            name=dataset.name,
            digest=dataset.digest[:_DIGEST_LENGTH],
            source_type="local",
            source=json.dumps({"uri": str(dataset.path)}),
            schema=json.dumps({"mlflow_colspec": [{"name": n, "type": t} for n, t in dataset.columns.items()]}),
            profile=json.dumps({"num_rows": dataset.rows, "sha256": dataset.digest}),
        )
        tags = [entities.InputTag("mlflow.data.context", dataset.context)]
        with translated(self._settings):
            self._client.log_inputs(self.id, [entities.DatasetInput(stated, tags)])

    def log_spec(self, spec: ModelSpec) -> str:
        """Keep the model's declaration of the day as ``spec.yaml``; returns its digest."""
        document = spec.model_dump(mode="json")
        digest = digest_json(document)
        with translated(self._settings):
            self._client.log_text(self.id, yaml.safe_dump(document, sort_keys=False), "spec.yaml")
            self._client.set_tag(self.id, "spec_digest", digest)
        return digest

    def log_environment(self) -> str:
        """Keep the installed packages and the code's commit; returns the commit."""
        commit = code_commit()
        with translated(self._settings):
            self._client.log_text(self.id, environment(), "environment/requirements.txt")
            self._client.set_tag(self.id, "code_commit", commit)
        return commit

    def log_model(self, folder: Path, digest: str) -> PackedModel:
        """Keep an exported model as an MLflow model; register it by `PackedModel.uri`.

        Raises:
            ArtefactMismatch: `folder` does not hold the export with `digest`.
        """
        return log_exported(self._client, self._settings, run_id=self.id, folder=folder, digest=digest)


class Tracking:
    """MLflow tracking as the settings say where it is."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @contextmanager
    def run(
        self, name: str, tags: Mapping[str, str], *, model: str, parent: TrackedRun | None = None
    ) -> Iterator[TrackedRun]:
        """Find or create the run with this name and these tags, and end it when the block ends.

        `tags` identify the run (`run_identity` makes them from a Dagster context): a retried step goes
        on in the run it began. An exception ends it as FAILED, an interruption as KILLED.

        Raises:
            RegistryUnavailable: MLflow cannot be reached.
        """
        client = connect(self._settings)
        with translated(self._settings):
            experiment = experiment_id(client, self._settings, model)
            identity = {**tags, **({_PARENT: parent.id} if parent else {})}
            run_id = _find_or_create(client, self._settings, experiment, name, identity)
        status = "KILLED"
        try:
            yield TrackedRun(client, self._settings, run_id, experiment)
            status = "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            with translated(self._settings):
                client.set_terminated(run_id, status)

    def opened(self, run_id: str, *, model: str) -> TrackedRun:
        """A run by its id, to add figures that were measured after it ended."""
        client = connect(self._settings)
        return TrackedRun(client, self._settings, run_id, experiment_id(client, self._settings, model))


def run_identity(context: dg.AssetExecutionContext, asset: dg.AssetKey | None = None) -> dict[str, str]:
    """Tags that are the same for every attempt of `asset` (the one at work) within one Dagster run and its retries."""
    run = context.run
    return {
        "dagster_run_id": run.root_run_id or run.run_id,
        "asset": (asset or context.asset_key).to_user_string(),
    }


def _find_or_create(
    client: MlflowClient, settings: Settings, experiment: str, name: str, identity: Mapping[str, str]
) -> str:
    wanted = {"mlflow.runName": name, **identity}
    clauses = " and ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items())
    with exclusive(settings):
        found = client.search_runs([experiment], clauses, max_results=1, order_by=["start_time ASC"])
        if not found:
            return str(client.create_run(experiment, run_name=name, tags=dict(identity)).info.run_id)
    run_id = str(found[0].info.run_id)
    client.update_run(run_id, status="RUNNING")
    return run_id
