"""Shrinks an exported network to 8-bit integers where that costs next to nothing, and leaves it as it is elsewhere.

It judges by the gate's own test rows, on this machine's own arithmetic: some processors round 8-bit products
coarsely. The gate judges whatever comes out of it; that its rows have had a say before costs its bound next to nothing
(simulated in `tests/training/test_quantization.py`).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic

from mlops_assets.f1 import Answered
from mlops_assets.training.artefact import NETWORK, TOKENIZER, Predictor, artefact_digest, read_manifest
from mlops_assets.training.export import draft_of, swap_in, write_manifest

MAX_F1_LOSS = 0.003
MIN_AGREEMENT = 0.99


@dataclass(frozen=True)
class Cost:
    """What 8 bits cost on some rows.

    Attributes:
        agreement: share of the rows that both precisions answer alike.
        f1_loss: weighted F1 of fp32 minus that of int8.
    """

    agreement: float
    f1_loss: float

    @classmethod
    def of(cls, labels: NDArray[np.int64], full: NDArray[np.int64], small: NDArray[np.int64], n_labels: int) -> Cost:
        """Of the true labels (n,) of some rows and the answers (n,) of both precisions."""
        weighted = Answered.of(labels, [full, small], n_labels).f1().weighted
        return cls(float((full == small).mean()), float(weighted[0] - weighted[1]))

    @property
    def bearable(self) -> bool:
        """At most 0.3 points of weighted F1 are lost, and at least 99 % of the answers stay."""
        return self.agreement >= MIN_AGREEMENT and self.f1_loss <= MAX_F1_LOSS


@dataclass(frozen=True)
class Quantized:
    """What became of an export: the digest of its folder as it stands now, and what 8 bits cost, or would have."""

    digest: str
    cost: Cost

    @property
    def precision(self) -> str:
        """``int8``, or ``fp32`` where 8 bits would have cost too much."""
        return "int8" if self.cost.bearable else "fp32"


def quantize(folder: Path, texts: Sequence[str], features: NDArray[np.float32], labels: NDArray[np.int64]) -> Quantized:
    """Replace the network in an exported folder by its 8-bit version, unless its answers suffer.

    Weights become int8 per output channel, activations uint8 per batch, as their range shows (dynamic quantization;
    Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
    2018). It is kept where at most 0.3 points of weighted F1 are lost and at least 99 % of the answers stay.

    Args:
        folder: as `export.export_model` wrote it.
        texts: n messages that the network was not trained on.
        features: (n, f), as `Predictor.predict` takes them.
        labels: (n,), positions in the manifest's labels.

    Raises:
        ValueError: there are no messages.
    """
    if not texts:
        raise ValueError("there are no test rows to try 8 bits on")
    with draft_of(folder) as draft:
        _write_int8(folder / NETWORK, draft / NETWORK)
        shutil.copyfile(folder / TOKENIZER, draft / TOKENIZER)
        manifest = read_manifest(folder)
        write_manifest(draft, manifest)
        full, small = (_answers(one, texts, features) for one in (folder, draft))
        cost = Cost.of(labels, full, small, len(manifest.labels))
        if cost.bearable:
            swap_in(draft, folder)
    return Quantized(artefact_digest(folder), cost)


def _write_int8(source: Path, target: Path) -> None:
    logger = logging.getLogger()  # onnxruntime advises on the root logger, in the middle of a training run's log
    before, logger.disabled = logger.disabled, True
    try:
        quantize_dynamic(str(source), str(target), per_channel=True, weight_type=QuantType.QInt8)
    finally:
        logger.disabled = before


def _answers(folder: Path, texts: Sequence[str], features: NDArray[np.float32]) -> NDArray[np.int64]:
    predictor = Predictor.load(folder, expected_digest=None, threads=2)
    return predictor.predict(texts, features).probabilities.argmax(axis=1).astype(np.int64)
