"""What a search leaves behind: a nested MLflow run for each trial, and a line for each epoch in Dagster's log.

Of a metric MLflow shows the last value. What an epoch came to has therefore names of its own (`validation_...`), and
`accuracy`, F1 and the figures are logged once, when the trial is over: all of them of its best epoch, whose weights
are kept.
"""

from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.lineage.loop import Loop

if TYPE_CHECKING:
    from mlops_assets.resources.tracking import TrackedRun, Tracking
    from mlops_assets.training.examples import Examples
    from mlops_assets.training.fit import EpochMetrics, Fitted, TrialConfig


class TrialLog:
    """One nested MLflow run a trial, and a line an epoch in Dagster's log."""

    def __init__(
        self,
        loop: Loop,
        context: dg.AssetExecutionContext,
        tracking: "Tracking",
        parent: "TrackedRun",
        validation: "Examples",
    ) -> None:
        self._loop, self._context, self._tracking, self._parent = loop, context, tracking, parent
        self._validation = validation
        self._open = ExitStack()
        self._run: TrackedRun | None = None

    def __enter__(self) -> "TrialLog":
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def epoch(self, config: "TrialConfig", metrics: "EpochMetrics") -> None:
        """Called after every epoch."""
        from mlops_assets.resources.tracking import run_identity

        if self._run is None:
            tags = {**run_identity(self._context), "trial": config.name}
            self._run = self._open.enter_context(
                self._tracking.run(config.name, tags, model=self._loop.model, parent=self._parent)
            )
            self._run.log_params(asdict(config))
        self._run.log_metrics(
            {
                "train_loss": metrics.train_loss,
                "validation_loss": metrics.validation_loss,
                "validation_f1_weighted": metrics.f1_weighted,
                "validation_accuracy": metrics.accuracy,
                "seconds": metrics.seconds,
            },
            step=metrics.epoch,
        )
        self._context.log.info(
            f"{config.name} epoch {metrics.epoch}: train loss {metrics.train_loss:.3f}, validation loss "
            f"{metrics.validation_loss:.3f}, weighted F1 {metrics.f1_weighted:.4f}"
        )

    def trial(self, fitted: "Fitted") -> None:
        """Called after every trial."""
        from mlops_assets.training.artefact import softmax
        from mlops_assets.training.evaluation import evaluate
        from mlops_assets.training.figures import confusion_matrix, learning_curve

        assert self._run is not None
        labels = self._loop.spec.data.labels
        result = evaluate(self._validation.labels, softmax(fitted.validation_logits, 1.0), labels)
        self._run.log_metrics({**result.metrics(), "best_epoch": fitted.best.epoch})
        self._run.log_figure(learning_curve(fitted.history, fitted.config.name), "figures/learning_curve.png")
        self._run.log_figure(
            confusion_matrix(result.confusion, labels, fitted.config.name), "figures/confusion_matrix.png"
        )
        self._open.close()
        self._run = None
