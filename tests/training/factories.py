"""Small worlds to learn from: three labels as noisy directions, features without information."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlops_assets.spec import EncoderSpec
from mlops_assets.training.encoder import Encoder, resolve
from mlops_assets.training.examples import Examples
from tests.training import tiny

PHRASES = (
    ("hello", "hello thanks"),
    ("where is my order", "where is order"),
    ("i want a refund", "want refund broken"),
)

_CPU = Path("/proc/cpuinfo")
# Without these instructions two 8-bit products are added in 16 bits, which overflow where weights are large.
ADDS_EXACTLY = _CPU.exists() and "vnni" in _CPU.read_text()


def tiny_encoder(folder: Path) -> Encoder:
    return resolve(EncoderSpec(name=str(folder), revision=None, weights_sha256=None, max_tokens=16))


def examples(n: int, seed: int, noise: float = 0.5) -> Examples:
    """n rows of three labels; embeddings are unit vectors near their label's axis."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    vectors = np.eye(3, tiny.WIDTH)[labels] + noise * rng.normal(size=(n, tiny.WIDTH)) / tiny.WIDTH**0.5
    return Examples(
        texts=tuple(PHRASES[label][row % 2] for row, label in enumerate(labels)),
        features=np.exp(rng.normal(3, 2, (n, 2))).astype(np.float32),
        labels=labels.astype(np.int64),
        weights=np.ones(n, dtype=np.float32),
        embeddings=(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
    )
