"""Requests that wait together are predicted together; each gets its own answer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from mlops_assets.serving.batcher import Floats, MicroBatcher, Overloaded

NOTHING = np.zeros(1, np.float32)


@dataclass(frozen=True)
class Lengths:
    probabilities: Floats


@dataclass
class LengthPredictor:
    """Answers a text's length; waits at the gate, refuses the text "bad"."""

    gate: threading.Event = field(default_factory=threading.Event)
    batches: list[list[str]] = field(default_factory=list)

    def predict(self, texts: Sequence[str], features: Floats) -> Lengths:
        self.gate.wait(5)
        self.batches.append(list(texts))
        if "bad" in texts:
            raise ValueError("bad text")
        assert features.shape == (len(texts), 1)
        return Lengths(np.array([[len(text)] for text in texts], np.float32))


def test_what_is_pending_is_sorted_by_length_and_run_in_chunks() -> None:
    predictor = LengthPredictor()
    batcher = MicroBatcher(predictor, chunk=2)
    first = batcher.submit("x", NOTHING)
    futures = [batcher.submit("x" * length, NOTHING) for length in (9, 3, 7, 5)]
    predictor.gate.set()
    assert first.result(5)[0] == 1
    assert [future.result(5)[0] for future in futures] == [9, 3, 7, 5]
    waited = [[len(text) for text in batch] for batch in predictor.batches]
    assert waited in ([[1], [3, 5], [7, 9]], [[1, 3], [5, 7], [9]])
    batcher.close()


def test_a_text_that_cannot_be_predicted_does_not_fail_its_neighbours() -> None:
    predictor = LengthPredictor()
    batcher = MicroBatcher(predictor)
    futures = {text: batcher.submit(text, NOTHING) for text in ("good", "bad", "fine!")}
    predictor.gate.set()
    assert futures["good"].result(5)[0] == 4
    assert futures["fine!"].result(5)[0] == 5
    with pytest.raises(ValueError, match="bad text"):
        futures["bad"].result(5)
    batcher.close()


def test_the_queue_is_bounded() -> None:
    predictor = LengthPredictor()
    batcher = MicroBatcher(predictor, max_pending=3)
    taken = batcher.submit("x", NOTHING)
    while not taken.running():
        pass
    waiting = [batcher.submit("x", NOTHING) for _ in range(3)]
    with pytest.raises(Overloaded):
        batcher.submit("x", NOTHING)
    predictor.gate.set()
    batcher.close()
    assert all(future.done() for future in waiting)


def test_closing_answers_what_is_pending() -> None:
    predictor = LengthPredictor()
    predictor.gate.set()
    batcher = MicroBatcher(predictor)
    future = batcher.submit("abc", NOTHING)
    batcher.close()
    assert future.result(0)[0] == 3
    with pytest.raises(Overloaded):
        batcher.submit("late", NOTHING)
