"""The canary's side: holds the versions under trial and answers for them, in a process of its own.

It is told what to hold again and again; after a crash the next telling mends it. It keeps no counts and
decides nothing.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlops_assets.serving.arms import LoadedVersion, checked, load_version
from mlops_assets.serving.routing import Absent, Answer, Refusal, VersionRef
from mlops_assets.serving.tracing import parse
from mlops_assets.spec import ModelSpec

log = logging.getLogger("mlops_assets.serving")


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
    """Versions by model; `specs`: the declared models."""

    def __init__(self, specs: Iterable[ModelSpec]) -> None:
        self._specs = {spec.name: spec for spec in specs}
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

    async def answer(
        self, model: str, ref: VersionRef, text: str, features: Mapping[str, float | None], traceparent: str | None
    ) -> Answer | Refusal | Absent:
        """Answer one message with the version under trial; never raises, as an exception loses its type on the way.

        Args:
            traceparent: of the request's trace; a failure is logged with its id.
        """
        held = self._loaded.get(model)
        if held is None or held.ref != ref:
            return Absent(f"version {ref.version} is not loaded")
        started = time.perf_counter()
        try:
            row = checked(await held.batcher.submit(text, held.vector(features)))
        except Exception as error:  # noqa: BLE001 - however it failed: the ingress counts it and asks the stable arm
            trace = parse(traceparent) if traceparent else None
            of_trace = f" (trace {trace.trace_id})" if trace else ""
            log.warning(
                "%s: canary version %s could not answer%s: %s", model, ref.version, of_trace, type(error).__name__
            )
            return Refusal(type(error).__name__)
        return Answer(tuple(row.tolist()), held.predictor.labels, 1000 * (time.perf_counter() - started))

    def _load(self, model: str, ref: VersionRef) -> None:
        try:
            self._loaded[model] = load_version(ref, self._specs[model])
            self._failed.pop(model, None)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the version ends its rollout, not this process
            self._failed[model] = (ref, f"{type(error).__name__}: {error}")
