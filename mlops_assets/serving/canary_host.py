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

from mlops_assets.serving.arms import LoadedVersion, checked, load_version, why_refused
from mlops_assets.serving.batcher import Overloaded, check_networks
from mlops_assets.serving.routing import Absent, Answer, Refusal, VersionRef
from mlops_assets.serving.tracing import parse
from mlops_assets.spec import ModelSpec

log = logging.getLogger("mlops_assets.serving")

# A version that loads for so long hangs: by then its rollout has been given up, as nothing was heard of this process.
LOADING_SECONDS = 180.0


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
        self._loading_since: float | None = None

    def hold(self, wanted: Mapping[str, VersionRef]) -> Held:
        """Load and warm what is wanted and not there, drop what is not wanted. Blocks while loading.

        What could not be loaded is tried again once it was let go: it may have been mended.
        """
        with self._lock:
            self._failed = {model: failed for model, failed in self._failed.items() if wanted.get(model) == failed[0]}
            for model in [model for model, held in self._loaded.items() if wanted.get(model) != held.ref]:
                self._loaded.pop(model).batcher.close()
            for model, ref in wanted.items():
                if model not in self._loaded and model not in self._failed:
                    self._load(model, ref)
            return Held(self._birth, {model: why for model, (_, why) in self._failed.items()})

    def check(self) -> None:
        """Raise when a version hangs: only a new process is rid of it."""
        check_networks()
        since = self._loading_since
        if since is not None and time.monotonic() - since > LOADING_SECONDS:
            raise RuntimeError("a version hangs in its loading")

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
        except Overloaded as overloaded:
            # A long queue tells of load and machine; the stable arm is not blamed for its own, either.
            return Absent(f"overloaded: {overloaded}")
        except Exception as error:  # noqa: BLE001 - however it failed: the ingress counts it and asks the stable arm
            trace = parse(traceparent) if traceparent else None
            of_trace = f" (trace {trace.trace_id})" if trace else ""
            log.warning(
                "%s: canary version %s could not answer%s: %s", model, ref.version, of_trace, type(error).__name__
            )
            return Refusal(type(error).__name__)
        return Answer(tuple(row.tolist()), held.predictor.labels, 1000 * (time.perf_counter() - started))

    def _load(self, model: str, ref: VersionRef) -> None:
        self._loading_since = time.monotonic()
        try:
            self._loaded[model] = load_version(ref, self._specs[model])
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the version ends its rollout, not this process
            log.error("%s: canary version %s cannot be loaded: %s", model, ref.version, error)
            self._failed[model] = (ref, f"{type(error).__name__}: {why_refused(ref, error)}")
        finally:
            self._loading_since = None
