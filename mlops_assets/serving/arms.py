"""Loaded versions: verified against the registry's digest, warmed, and kept until nobody needs them.

The stable arm of one model lives here; loading happens beside the version that serves, and the old
one stays warm so that going back is instant. Which version should serve is the routing table's matter.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlops_assets.resources.predictors import VersionPredictor, load_predictor
from mlops_assets.serving.batcher import Floats, MicroBatcher
from mlops_assets.serving.routing import VersionRef
from mlops_assets.spec import ModelSpec
from mlops_assets.training.artefact import ArtefactError, feature_rows

log = logging.getLogger("mlops_assets.serving")

# Short, middling and long: the first call of each shape is the slow one.
_WARM_TEXTS = ("hello", "where is my order " * 5, "please send the money back for this one " * 10)

# A version that could not be loaded is tried again after so long: its files may have been mended.
RETRY_SECONDS = 10.0


class NotAnswerable(RuntimeError):
    """The network gave no usable probabilities (not a number) for a message."""


@dataclass(frozen=True)
class LoadedVersion:
    """One version in memory, with the thread that runs it."""

    ref: VersionRef
    predictor: VersionPredictor
    batcher: MicroBatcher

    def vector(self, values: Mapping[str, float | None]) -> Floats:
        """The feature vector (f,) of looked-up values by name; an absent one takes the version's default."""
        filled: Floats = feature_rows(self.predictor.feature_names, [values])[0]
        return filled


def load_version(ref: VersionRef, spec: ModelSpec) -> LoadedVersion:
    """Verify, load and warm one version; a message waits for its turn as long as the model's deadline says.

    Raises:
        ArtefactError: the files are not those that were registered, or cannot be loaded.
    """
    try:
        predictor = load_predictor(Path(ref.artefact), ref.digest, ref.form, spec)
        unknown = feature_rows(predictor.feature_names, [{}])
        for text in _WARM_TEXTS:
            predictor.predict([text], unknown)
    except SystemExit as exit_:  # a model may bring any code, and this would end whoever loads it
        raise ArtefactError("it exits instead of answering") from exit_
    return LoadedVersion(ref, predictor, MicroBatcher(predictor, patience=spec.serving.deadline_ms / 1000))


def why_refused(ref: VersionRef, error: Exception) -> str:
    """Why a version cannot be loaded, as anybody may read it: without where its files lie."""
    return str(error).replace(f"{ref.artefact}/", "").replace(ref.artefact, "its folder")


def checked(probabilities: Floats) -> Floats:
    """The probabilities, unless one of them is no number.

    Raises:
        NotAnswerable: then the caller has to look elsewhere.
    """
    if not np.isfinite(probabilities).all():
        raise NotAnswerable("the network answered with a value that is not a number")
    return probabilities


class StableArm:
    """The version that serves, and the one before it, both warm.

    `follow` may be called as often as one likes: it does nothing when the wanted version serves already.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._current: LoadedVersion | None = None
        self._previous: LoadedVersion | None = None
        self._refused: VersionRef | None = None
        self._retry_at = 0.0
        self.error: str | None = None

    @property
    def current(self) -> LoadedVersion | None:
        """The version that answers, or None while there is none."""
        return self._current

    @property
    def refused(self) -> VersionRef | None:
        """The version that is to answer and could not be loaded, if any."""
        return self._refused if self.error is not None else None

    def follow(self, ref: VersionRef | None) -> None:
        """Serve `ref`: load and warm it beside the current version, then flip. Blocks; call it in a thread.

        A version that cannot be loaded leaves the current one serving, and so does a registry that names none, which
        is a slip of somebody's hand or a moment between two; `error` says why.
        """
        with self._lock:
            if ref is None:
                self._serve_on()
            elif self._current is not None and self._current.ref == ref:
                self.error = None
            elif ref != self._refused or time.monotonic() >= self._retry_at:
                self._load_and_flip(ref)

    def _serve_on(self) -> None:
        if self._current is None:
            return
        told, self._refused = self.error, None
        self.error = f"no version has the alias production; version {self._current.ref.version} serves on"
        if told != self.error:
            log.error(self.error)

    def _load_and_flip(self, ref: VersionRef) -> None:
        try:
            warm = self._previous if self._previous and self._previous.ref == ref else load_version(ref, self._spec)
        except Exception as error:  # noqa: BLE001 - an unusable version must never take down the one that serves
            self.error = f"version {ref.version} is refused: {why_refused(ref, error)}"
            self._refused, self._retry_at = ref, time.monotonic() + RETRY_SECONDS
            log.error("version %s is refused: %s", ref.version, error)
            return
        self._flip(warm)
        log.info("version %s serves", ref.version)

    def _flip(self, version: LoadedVersion) -> None:
        dropped = self._previous
        self._previous, self._current = self._current, version
        self.error = None
        if dropped is not None and dropped is not version:
            dropped.batcher.close()
