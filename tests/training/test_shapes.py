"""An exported graph computes none of the shapes that are known before it runs."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mlops_assets.training.artefact import NETWORK
from mlops_assets.training.shapes import fix_shapes


def written(path: Path, *first: onnx.NodeProto, strange: bool = False) -> Path:
    """A graph that brings `x` (t, 2, 2) into rows of four, the width as a constant and the length by its shape."""
    nodes = [
        *first,
        helper.make_node("Shape", ["x"], ["shape"], end=1),
        helper.make_node("Constant", [], ["width"], value=helper.make_tensor("four", TensorProto.INT64, [1], [4])),
        helper.make_node("Concat", ["shape", "width"], ["target"], axis=0),
        helper.make_node("Reshape", ["y" if strange else "x", "target"], ["rows"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["t", 2, 2])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, None)],
    )
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("strange", 1)]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), path)
    return path


def operations(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("length", [1, 3, 17])
def test_what_computed_a_known_shape_is_gone_and_any_length_is_answered_as_before(tmp_path: Path, length: int) -> None:
    network = written(tmp_path / "model.onnx")
    fix_shapes(network)
    assert operations(network) == ["Reshape"]
    given = np.arange(length * 4, dtype=np.float32).reshape(length, 2, 2)
    (rows,) = onnxruntime.InferenceSession(network).run(None, {"x": given})
    np.testing.assert_array_equal(rows, given.reshape(length, 4))


def test_a_graph_with_an_operation_that_is_not_known_stays_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = written(tmp_path / "model.onnx", helper.make_node("Foo", ["x"], ["y"], domain="strange"), strange=True)
    before = operations(network)
    with caplog.at_level(logging.WARNING):
        fix_shapes(network)
    assert operations(network) == before
    assert "Incomplete symbolic shape inference" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_an_export_computes_no_shape_in_its_layers(exported: Path) -> None:
    graph = onnx.load(exported / NETWORK).graph
    known = {constant.name for constant in graph.initializer}
    targets = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    assert targets
    assert targets <= known
