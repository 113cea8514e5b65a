"""Makes the version that the demo lets past the gate: its labels stand in the wrong order, and it is slow."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mlops_assets.training.artefact import NETWORK, Predictor, read_manifest
from mlops_assets.training.export import derive_artefact, write_manifest

_SIDE = 1024  # a product of two such squares is 2 GFLOP: some hundredths of a second on one core


def make_bad_version(good: Path, folder: Path, at_least_ms: float) -> None:
    """Write into `folder` an exported model that answers as `good` with another label's name, and slowly.

    An answer takes `at_least_ms` of a processor here, and hardly over twice that: who judges the version asks it often.
    """
    labels = read_manifest(good).labels
    derive_artefact(good, folder, {"labels": (*labels[1:], labels[0])})
    quick = onnx.load(folder / NETWORK)
    products = 1
    while _answer_ms(folder) < at_least_ms:
        onnx.save(_with_ballast(quick, products), folder / NETWORK)
        write_manifest(folder, read_manifest(folder))
        products *= 2


def _answer_ms(folder: Path) -> float:
    """The quickest of three answers, in time of a processor: what else runs here does not make the version slow."""
    predictor = Predictor.load(folder, expected_digest=None)
    features = np.full((1, len(predictor.feature_names)), np.nan, np.float32)
    seconds = []
    for _ in range(3):
        started = time.thread_time()
        predictor.predict(["hello"], features)
        seconds.append(time.thread_time() - started)
    return 1000 * min(seconds)


def _with_ballast(quick: onnx.ModelProto, products: int) -> onnx.ModelProto:
    """The same logits, plus nothing times a chain of matrix products that hangs on the input."""
    model = onnx.ModelProto()
    model.CopyFrom(quick)
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["quick_logits" if name == "logits" else name for name in node.output]
        node.input[:] = ["quick_logits" if name == "logits" else name for name in node.input]
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.full((_SIDE, _SIDE), 1e-3, np.float32), "ballast"),
            numpy_helper.from_array(np.zeros(1, np.float32), "nothing"),
        ]
    )
    graph.node.append(helper.make_node("ReduceMax", ["embedding"], ["seed"], keepdims=1))
    graph.node.append(helper.make_node("Add", ["ballast", "seed"], ["work_0"]))
    for step in range(products):
        graph.node.append(helper.make_node("MatMul", [f"work_{step}", "ballast"], [f"product_{step}"]))
        graph.node.append(helper.make_node("Tanh", [f"product_{step}"], [f"work_{step + 1}"]))
    graph.node.append(helper.make_node("ReduceMax", [f"work_{products}"], ["peak"], keepdims=1))
    graph.node.append(helper.make_node("Mul", ["peak", "nothing"], ["no_peak"]))
    graph.node.append(helper.make_node("Add", ["quick_logits", "no_peak"], ["logits"]))
    return model
