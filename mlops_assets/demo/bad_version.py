"""Makes the version that the demo lets past the gate: its labels stand in the wrong order, and it is slow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mlops_assets.training.artefact import NETWORK, read_manifest
from mlops_assets.training.export import derive_artefact, write_manifest

_SIDE = 1024
_PRODUCTS = 10  # of 2 GFLOP each: two to five tenths of a second on one core


def make_bad_version(good: Path, folder: Path) -> None:
    """Write into `folder` an exported model that answers as `good` with another label's name, and slowly."""
    labels = read_manifest(good).labels
    derive_artefact(good, folder, {"labels": (*labels[1:], labels[0])})
    onnx.save(_with_ballast(onnx.load(folder / NETWORK)), folder / NETWORK)
    write_manifest(folder, read_manifest(folder))


def _with_ballast(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same logits, plus nothing times a chain of matrix products that hangs on the input."""
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
    for step in range(_PRODUCTS):
        graph.node.append(helper.make_node("MatMul", [f"work_{step}", "ballast"], [f"product_{step}"]))
        graph.node.append(helper.make_node("Tanh", [f"product_{step}"], [f"work_{step + 1}"]))
    graph.node.append(helper.make_node("ReduceMax", [f"work_{_PRODUCTS}"], ["peak"], keepdims=1))
    graph.node.append(helper.make_node("Mul", ["peak", "nothing"], ["no_peak"]))
    graph.node.append(helper.make_node("Add", ["quick_logits", "no_peak"], ["logits"]))
    return model
