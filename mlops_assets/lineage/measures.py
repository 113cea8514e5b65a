"""What a candidate is judged on: the rows of its snapshot, and a model's answers to them.

The run that judges and whoever verifies its evidence measure the same way. It knows no Dagster and takes no decision.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from mlops_assets.data.split import TEST
from mlops_assets.data.tables import read_table
from mlops_assets.f1 import customer_numbers
from mlops_assets.settings import ModelHome
from mlops_assets.spec import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from mlops_assets.release.provable import Provable
    from mlops_assets.resources.predictors import VersionPredictor

HOPELESS_ROWS = 100  # a slow model would take minutes over the whole test set, to fail all the same


class FeaturesMissing(LookupError):
    """The features of a snapshot were not joined yet."""


def features_path(home: ModelHome, snapshot_digest: str) -> Path:
    """Where the features of a snapshot's rows are kept."""
    return home.snapshots / "features" / f"{snapshot_digest}.parquet"


def read_features(home: ModelHome, snapshot_digest: str) -> pl.DataFrame:
    """The point-in-time features of a snapshot's rows.

    Raises:
        FeaturesMissing: they were not joined yet.
    """
    path = features_path(home, snapshot_digest)
    if not path.exists():
        raise FeaturesMissing(f"{path} is missing: materialize training_features")
    return read_table(path)


def with_features(frame: pl.DataFrame, features: pl.DataFrame) -> pl.DataFrame:
    """A snapshot's rows with their point-in-time features."""
    return frame.join(features, on="message_id", how="left", maintain_order="left")


def rows_to_judge(frame: pl.DataFrame, latencies: NDArray[np.floating[Any]], spec: ModelSpec) -> pl.DataFrame:
    """All test rows; for a candidate that its latency alone already fails, a few that show what it is like."""
    test = frame.filter(pl.col("part") == TEST)
    from mlops_assets.release.latency import is_hopeless

    hopeless = is_hopeless(latencies, spec.gate.max_latency_ms, spec.gate.latency_percentile)
    if not hopeless or test.height <= HOPELESS_ROWS:
        return test
    return test.sample(HOPELESS_ROWS, seed=spec.training.seed)


def feature_matrix(names: Collection[str], rows: pl.DataFrame) -> NDArray[np.float32]:
    """The feature matrix (n, f) of some rows, as a predictor takes it; null is NaN, for which it has defaults."""
    columns = rows.select(pl.col(list(names)).cast(pl.Float32))
    return columns.to_numpy().reshape(rows.height, len(names))  # of no columns polars makes no rows


def answers(predictor: VersionPredictor, rows: pl.DataFrame, labels: tuple[str, ...]) -> Any:
    """Probabilities (n, labels) with the columns in the order of the declared `labels`.

    A champion may be older than the declaration: a label that it does not know has 0, and of one that is declared no
    more its probability is left out.
    """
    found = predictor.predict(rows["text"].to_list(), feature_matrix(predictor.feature_names, rows)).probabilities
    theirs = dict(zip(predictor.labels, found.T, strict=True))
    return np.stack([theirs.get(label, np.zeros(rows.height, np.float32)) for label in labels], axis=1)


def newer_than(rows: pl.DataFrame, moment: datetime) -> NDArray[np.bool_]:
    """Which rows are from after a moment: the newest window of a champion that was trained until then."""
    newest: NDArray[np.bool_] = (rows["event_timestamp"] > moment).to_numpy()
    return newest


def earlier_decisions(home: ModelHome, but: str = "") -> list[str]:
    """Artefact digests of the candidates that were judged on a model's test rows; each look wears these out."""
    return sorted(path.stem for path in (home.evidence / "gate").glob("*.json") if path.stem != but)


def provable_on(test: pl.DataFrame, spec: ModelSpec, trained_until: datetime | None, earlier_uses: int) -> Provable:
    """What the gate could prove on test rows; `trained_until` is the champion's, None where there is none."""
    from mlops_assets.release.evidence import numbers_of
    from mlops_assets.release.provable import provable

    newest = None if trained_until is None else newer_than(test, trained_until)
    truth, customers = numbers_of(test["label"], spec.data.labels), customer_numbers(test["customer_id"])
    return provable(truth, spec.data.labels, spec.gate, newest=newest, customers=customers, earlier_uses=earlier_uses)
