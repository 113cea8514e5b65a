"""How a registered version answers: one interface, and the predictor that fits the version's files.

Our own export takes the fast path; every other MLflow model goes through its pyfunc. Whoever asks a
version (endpoint, gate, verification) loads it here and need not know which it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlops_assets.resources.packaging import ArtefactFormat
from mlops_assets.spec import ModelSpec
from mlops_assets.training.artefact import ArtefactError, Predictor

Floats = NDArray[np.float32]


class Answers(Protocol):
    """`probabilities`: float32 (n, labels)."""

    @property
    def probabilities(self) -> Floats: ...


class VersionPredictor(Protocol):
    """What a version can be asked; safe to ask from one thread at a time.

    A feature that is NaN takes the version's default.

    `labels` are in the order of the probabilities' columns, `feature_names` in that of the features' columns.
    """

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def feature_names(self) -> tuple[str, ...]: ...

    def predict(self, texts: Sequence[str], features: Floats) -> Answers: ...


def load_predictor(
    folder: Path, digest: str, form: ArtefactFormat, spec: ModelSpec, *, threads: int = 1
) -> VersionPredictor:
    """Verify a version's files against the digest that was recorded at registration, then load them.

    Args:
        form: what the folder is: our own export, or an MLflow model.
        threads: of one call of an export; how many an MLflow model uses is its own affair.

    Raises:
        ArtefactError: no digest was recorded, the files are others, or they cannot be loaded and asked.
    """
    if not digest:
        raise ArtefactError("no digest of its files was recorded: `mlops register models:/NAME/VERSION` does that")
    if form == "export":
        return Predictor.load(folder, expected_digest=digest, threads=threads)
    from mlops_assets.resources.pyfunc import PyfuncPredictor

    return PyfuncPredictor.load(folder, expected_digest=digest, spec=spec)
