"""Tiny models that answer one fixed label, so that a test can tell from a reply which version gave it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from mlops_assets.resources.registry import Registry, Version
from mlops_assets.storage import digest_file, write_json
from mlops_assets.training.artefact import MANIFEST, NETWORK, TOKENIZER, Manifest, artefact_digest

LABELS = ("greeting", "farewell", "query", "complaint", "order_status", "refund", "other")
DEFAULTS = {
    "orders_90d": 0.0,
    "spend_90d": 0.0,
    "return_share_90d": 0.0,
    "mean_basket_90d": 0.0,
    "tenure_days": 0.0,
}
MODEL = "intent_classifier"


def write_artefact(folder: Path, label: str, logit: float = 4.0) -> str:
    """An exported model that gives `label` to every message; another `logit`, another digest."""
    logits = np.zeros(len(LABELS), np.float32)
    logits[LABELS.index(label)] = logit
    return _write(folder, logits, burn=0)


def write_broken_artefact(folder: Path) -> str:
    """One whose every answer is not a number."""
    return _write(folder, np.full(len(LABELS), np.nan, np.float32), burn=0)


def write_slow_artefact(folder: Path, label: str) -> str:
    """One that answers `label` after a few hundred milliseconds of work."""
    logits = np.zeros(len(LABELS), np.float32)
    logits[LABELS.index(label)] = 4.0
    return _write(folder, logits, burn=6)


def write_working_artefact(folder: Path, label: str) -> str:
    """One that takes a millisecond or two of work for each message, as the reference model does."""
    logits = np.zeros(len(LABELS), np.float32)
    logits[LABELS.index(label)] = 4.0
    return _write(folder, logits, burn=0, labour=60)


def register(registry: Registry, folder: Path, digest: str, *, alias: str, model: str = MODEL) -> Version:
    """Register an artefact with gate evidence and give it an alias that nobody holds."""
    version = registry.register(model, None, folder, digest, "test version", {"gate": "pass"})
    registry.attach_evidence(model, version.version, "gate", {"verdict": "pass"})
    return registry.move_alias(model, alias, version.version, expected=None, evidence_name="gate")


def _write(folder: Path, logits: np.ndarray, burn: int, labour: int = 0) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    onnx.save(_network(logits, burn, labour), folder / NETWORK)
    vocabulary = {"[PAD]": 0, "[UNK]": 1}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / TOKENIZER))
    digests = {name: digest_file(folder / name) for name in (NETWORK, TOKENIZER)}
    manifest = Manifest(labels=LABELS, feature_defaults=DEFAULTS, max_tokens=128, digests=digests)
    write_json(folder / MANIFEST, manifest.to_document())
    return artefact_digest(folder)


def _network(logits: np.ndarray, burn: int, labour: int) -> onnx.ModelProto:
    """logits + 0 * (the work): the work hangs on an input, so it cannot be folded away.

    `burn` is work per batch, `labour` work per message.
    """
    nodes = [
        helper.make_node("ReduceSum", ["features"], ["sum"], keepdims=1),  # (1, 1)
        helper.make_node("ReduceSum", ["features", "axis"], ["rows"], keepdims=1),  # (n, 1)
        helper.make_node("Add", ["matrix", "sum"], ["work0"]),
        helper.make_node("Mul", ["rows", "width"], ["labour0"]),  # (n, width)
    ]
    for step in range(burn):
        nodes.append(helper.make_node("MatMul", [f"work{step}", "matrix"], [f"product{step}"]))
        nodes.append(helper.make_node("Tanh", [f"product{step}"], [f"work{step + 1}"]))
    nodes += [helper.make_node("Tanh", [f"labour{step}"], [f"labour{step + 1}"]) for step in range(labour)]
    nodes += [
        helper.make_node("ReduceMax", [f"work{burn}"], ["peak"], keepdims=1),  # (1, 1)
        helper.make_node("ReduceMax", [f"labour{labour}"], ["peaks"], axes=[1], keepdims=1),  # (n, 1)
        helper.make_node("Add", ["peak", "peaks"], ["done"]),
        helper.make_node("Mul", ["done", "zero"], ["offset"]),
        helper.make_node("Add", ["offset", "fixed"], ["logits"]),
        helper.make_node("Concat", ["offset", "offset"], ["embedding"], axis=1),
        helper.make_node("Identity", ["input_ids"], ["unused_ids"]),
        helper.make_node("Identity", ["attention_mask"], ["unused_mask"]),
    ]
    side, width = 1000 if burn else 1, 100_000 if labour else 1
    constants = [
        numpy_helper.from_array(np.float32(0.0).reshape(1), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.full((side, side), 0.001, np.float32), "matrix"),
        numpy_helper.from_array(np.ones((1, width), np.float32), "width"),
        numpy_helper.from_array(logits.reshape(1, -1), "fixed"),
    ]
    tokens, rows = ["n", "t"], ["n", len(DEFAULTS)]
    graph = helper.make_graph(
        nodes,
        "fixed-label",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, tokens),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, tokens),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, rows),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(LABELS)]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 2]),
        ],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
