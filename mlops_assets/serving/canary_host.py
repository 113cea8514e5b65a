"""The canary's side: holds the versions under trial and answers for them, in a process of its own.

It is told what to hold again and again; after a crash the next telling mends it. It keeps no counts and
decides nothing.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from mlops_assets.serving.arms import LoadedVersion, NotAnswerable, checked, load_version
from mlops_assets.serving.batcher import Floats
from mlops_assets.serving.routing import Absent, Answer, Refusal, VersionRef


@dataclass(frozen=True)
class Held:
    """What the canary process holds.

    Attributes:
        birth: names this life of the process; another one means that it died in between.
        failed: model -> why its version cannot be loaded; the others of those asked for are ready.
    """

    birth: str
    failed: dict[str, str]


class CanaryHost:
    """Versions by model."""

    def __init__(self) -> None:
        self._birth = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._loaded: dict[str, LoadedVersion] = {}
        self._failed: dict[str, tuple[VersionRef, str]] = {}

    def hold(self, wanted: Mapping[str, VersionRef]) -> Held:
        """Load and warm what is wanted and not there, drop what is not wanted. Blocks while loading."""
        with self._lock:
            for model in [model for model, held in self._loaded.items() if wanted.get(model) != held.ref]:
                self._loaded.pop(model).batcher.close()
            for model, ref in wanted.items():
                if model not in self._loaded and self._failed.get(model, (None,))[0] != ref:
                    self._load(model, ref)
            failed = {m: why for m, (ref, why) in self._failed.items() if wanted.get(m) == ref}
        return Held(self._birth, failed)

    def find(self, model: str, ref: VersionRef) -> LoadedVersion | Absent:
        """The loaded version, or that it is not there."""
        held = self._loaded.get(model)
        if held is None or held.ref != ref:
            return Absent(f"version {ref.version} is not loaded")
        return held

    def _load(self, model: str, ref: VersionRef) -> None:
        try:
            self._loaded[model] = load_version(ref)
            self._failed.pop(model, None)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the version ends its rollout, not this process
            self._failed[model] = (ref, f"{type(error).__name__}: {error}")


def answer_of(held: LoadedVersion, probabilities: Floats) -> Answer | Refusal:
    """The reply that travels back to the ingress."""
    try:
        row = checked(probabilities)
    except NotAnswerable as error:
        return Refusal(str(error))
    return Answer(tuple(float(p) for p in row), held.predictor.labels)
