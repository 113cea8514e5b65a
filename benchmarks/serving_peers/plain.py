"""The exported network behind a server that batches by its own means, as one would call it: the batch as it comes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mlops_assets.training.artefact import NETWORK, TOKENIZER, Predictor, read_manifest, softmax


class Batches:
    """Answers a batch: in one run, padded to its longest text; or, with `BENCH_PREDICTOR=ours`, as ours does."""

    def __init__(self) -> None:
        folder = Path(os.environ["BENCH_ARTEFACT"])
        manifest = read_manifest(folder)
        self.labels = manifest.labels
        self._defaults = np.array(list(manifest.feature_defaults.values()), np.float32)
        self._ask = _ours(folder) if os.environ.get("BENCH_PREDICTOR") == "ours" else _padded(folder)

    def answer(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Label and confidence of each text."""
        rows = self._ask(list(texts), np.tile(self._defaults, (len(texts), 1)))
        return [{"label": self.labels[int(row.argmax())], "confidence": float(row.max())} for row in rows]


def _ours(folder: Path) -> Any:
    predictor = Predictor.load(folder, expected_digest=None)
    return lambda texts, features: predictor.predict(texts, features).probabilities


def _padded(folder: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / NETWORK, options, ["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))  # it pads, as its file says

    def ask(texts: list[str], features: NDArray[np.float32]) -> NDArray[np.float32]:
        encodings = tokenizer.encode_batch_fast(texts)
        tokens = {
            "input_ids": np.array([encoding.ids for encoding in encodings], np.int64),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings], np.int64),
        }
        return softmax(session.run(["logits"], {**tokens, "features": features})[0], 1.0)

    return ask
