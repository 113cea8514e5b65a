"""Remembers the embedding of every text ever embedded, so that a retrain embeds new texts only.

Vectors are kept under the encoder's digest and the text's digest, in files that are written once and changed only
to drop some: a crash loses at most the file in the making, and two trainings at once do no harm.
"""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mlops_assets.storage import write_atomic
from mlops_assets.training.encoder import Encoder, best_device
from mlops_assets.training.threads import cores, one_thread_per_operation
from mlops_assets.training.tokens import tokenize

# Texts per file: some ten seconds of work on one core, the most that a crash can lose.
_SHARD = 2048
_BATCH = 32
_DAMAGED = (ValueError, KeyError, OSError, zipfile.BadZipFile)

OnProgress = Callable[[int, int], None]

logger = logging.getLogger(__name__)


def embed(
    texts: Sequence[str], encoder: Encoder, folder: Path, on_progress: OnProgress | None = None
) -> NDArray[np.float32]:
    """Embeddings (n, d) of some texts; those seen before come from `folder`, the others are added to it.

    Args:
        texts: in any order, repeats allowed.
        encoder: frozen; its digest and `max_tokens` are part of the key.
        folder: of the cache; may be shared by encoders and models.
        on_progress: told (texts done, texts to do) of this call's new texts, first with 0 done.
    """
    home = folder / f"{encoder.digest[:32]}-{encoder.max_tokens}"
    keys = [_key(text) for text in texts]
    known = _load(home, encoder.width)
    new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if new:
        known |= _compute(new, encoder, home, on_progress or (lambda *_: None))
    if not keys:
        return np.empty((0, encoder.width), dtype=np.float32)
    return np.stack([known[key] for key in keys])


def drop(texts: Iterable[str], folder: Path) -> int:
    """Take the embeddings of some texts out of the cache of every encoder; returns how many there were."""
    gone = {_key(text) for text in texts}
    dropped = 0
    for path in sorted(folder.glob("*/*.npz")):
        try:
            with np.load(path, allow_pickle=False) as shard:
                keys, vectors = shard["keys"], shard["vectors"]
        except _DAMAGED:
            path.unlink()  # what is in it cannot be said, and can be computed again
            continue
        kept = np.array([key.tobytes() not in gone for key in keys], dtype=bool)
        if not kept.any():
            path.unlink()
        elif not kept.all():
            _write_shard(path, keys[kept], vectors[kept])
        dropped += int((~kept).sum())
    return dropped


def _compute(
    new: dict[bytes, str], encoder: Encoder, home: Path, on_progress: OnProgress
) -> dict[bytes, NDArray[np.float32]]:
    network = encoder.load().to(best_device())
    done: dict[bytes, NDArray[np.float32]] = {}
    on_progress(0, len(new))
    items = list(new.items())
    for start in range(0, len(items), _SHARD):
        keys, texts = zip(*items[start : start + _SHARD], strict=True)
        vectors = run_encoder(network, encoder, texts)
        _store(home, keys, vectors)
        done.update(zip(keys, vectors, strict=True))
        on_progress(len(done), len(items))
    return done


def run_encoder(network: torch.nn.Module, encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Embeddings (n, d) of n texts, in batches of like length so that little is spent on padding.

    On the CPU each core works on batches of its own.
    """
    tokens = tokenize(encoder, texts)
    order = sorted(range(len(texts)), key=lambda row: len(tokens.ids[row]))
    device = next(network.parameters()).device
    vectors = np.empty((len(texts), encoder.width), dtype=np.float32)

    def run(rows: list[int]) -> None:
        ids, mask = tokens.batch(rows)
        with torch.inference_mode():
            vectors[rows] = network(ids.to(device), mask.to(device)).float().cpu().numpy()

    workers = cores() if device.type == "cpu" else 1
    with (
        one_thread_per_operation(),
        ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        # list() waits for every batch and raises the first failure of any
        list(pool.map(run, [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]))
    return vectors


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _store(home: Path, keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
    path = home / f"{hashlib.sha256(b''.join(keys)).hexdigest()[:32]}.npz"
    _write_shard(path, np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 32), vectors)


def _write_shard(path: Path, keys: NDArray[np.uint8], vectors: NDArray[np.float32]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, keys=keys, vectors=vectors)
    write_atomic(path, buffer.getvalue())


def _load(home: Path, width: int) -> dict[bytes, NDArray[np.float32]]:
    known: dict[bytes, NDArray[np.float32]] = {}
    for path in sorted(home.glob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as shard:
                keys, vectors = shard["keys"], shard["vectors"]
            if vectors.shape != (len(keys), width):
                raise ValueError(f"vectors of shape {vectors.shape} for {len(keys)} texts")
        except _DAMAGED as error:
            # What a cache has lost can be computed again; stopping the line for it would help nobody.
            logger.warning("%s is damaged (%s); its texts are embedded again", path, error)
            continue
        known.update(zip((key.tobytes() for key in keys), vectors, strict=True))
    return known
