"""Stand-ins for a version's network, so that a test decides when it answers, and how."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from mlops_assets.resources.predictors import Floats
from mlops_assets.serving import arms
from mlops_assets.serving.routing import VersionRef


@dataclass(frozen=True)
class Certain:
    probabilities: Floats


@dataclass
class Network:
    """Certain of its one label; `meets` is called with the texts first."""

    meets: Callable[[Sequence[str]], object] = len
    labels: tuple[str, ...] = ("refund",)
    feature_names: tuple[str, ...] = ()

    def predict(self, texts: Sequence[str], features: Floats) -> Certain:
        self.meets(texts)
        return Certain(np.ones((len(features), 1), np.float32))


@dataclass
class Door:
    """Holds up whoever meets it with the text "stop" until it opens."""

    held: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self, texts: Sequence[str]) -> None:
        if "stop" in texts:
            self.held.set()
            assert self.opened.wait(30)


@contextmanager
def a_door() -> Iterator[Door]:
    """It is open in the end, so that no thread outlives its test."""
    door = Door()
    try:
        yield door
    finally:
        door.opened.set()


def ref(version: int) -> VersionRef:
    """A version whose network `versions` gives."""
    return VersionRef(version, f"artefact-{version}", "digest")


def versions(monkeypatch: pytest.MonkeyPatch, load: Callable[[int], Network]) -> None:
    """Whatever is loaded, its network is what `load` returns for the version's number."""
    monkeypatch.setattr(arms, "load_predictor", lambda folder, *_: load(int(Path(folder).name.split("-")[-1])))
