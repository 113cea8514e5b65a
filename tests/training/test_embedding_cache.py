"""A text is embedded once; what the cache gives back is what the encoder gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mlops_assets.spec import EncoderSpec
from mlops_assets.training.embedding_cache import drop, embed
from mlops_assets.training.encoder import Encoder, resolve
from mlops_assets.training.tokens import tokenize

TEXTS = ["hello", "where is my order", "i want a refund", "bye", "hello"]


@pytest.fixture
def encoder(encoder_folder: Path) -> Encoder:
    return resolve(EncoderSpec(name=str(encoder_folder), revision=None, weights_sha256=None, max_tokens=16))


class Told:
    """Remembers what a caller is told of the progress."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.steps.append((done, total))


def test_vectors_come_in_the_order_of_the_texts_and_equal_the_encoders_own(encoder: Encoder, tmp_path: Path) -> None:
    vectors = embed(TEXTS, encoder, tmp_path)
    network = encoder.load()
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids, mask = tokenize(encoder, [text]).batch([0])
        with torch.inference_mode():
            np.testing.assert_allclose(vector, network(ids, mask)[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_only_new_texts_are_embedded_again(encoder: Encoder, tmp_path: Path) -> None:
    first, again, more = Told(), Told(), Told()
    before = embed(TEXTS, encoder, tmp_path, first)
    np.testing.assert_array_equal(embed(TEXTS, encoder, tmp_path, again), before)
    embed([*TEXTS, "thanks"], encoder, tmp_path, more)
    assert (first.steps, again.steps, more.steps) == ([(0, 4), (4, 4)], [], [(0, 1), (1, 1)])


def test_another_length_limit_is_another_cache(encoder: Encoder, encoder_folder: Path, tmp_path: Path) -> None:
    shorter = resolve(EncoderSpec(name=str(encoder_folder), revision=None, weights_sha256=None, max_tokens=8))
    told = Told()
    embed(TEXTS, encoder, tmp_path)
    embed(TEXTS, shorter, tmp_path, told)
    assert told.steps == [(0, 4), (4, 4)]


def test_a_damaged_file_is_embedded_again_and_mended(
    encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = embed(TEXTS, encoder, tmp_path)
    [path] = tmp_path.rglob("*.npz")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    np.testing.assert_allclose(embed(TEXTS, encoder, tmp_path), before, atol=1e-6)
    assert "is damaged" in caplog.text
    told = Told()
    embed(TEXTS, encoder, tmp_path, told)
    assert told.steps == []


def test_no_texts_give_no_vectors(encoder: Encoder, tmp_path: Path) -> None:
    assert embed([], encoder, tmp_path).shape == (0, encoder.width)


def test_what_is_dropped_is_gone_and_the_others_stay(encoder: Encoder, tmp_path: Path) -> None:
    before = embed(TEXTS, encoder, tmp_path)
    assert drop(["bye", "never seen"], tmp_path) == 1
    told = Told()
    np.testing.assert_allclose(embed(TEXTS, encoder, tmp_path, told), before, atol=1e-6)
    assert told.steps == [(0, 1), (1, 1)]
    assert drop(TEXTS, tmp_path) == 4
    assert not list(tmp_path.rglob("*.npz"))
    assert drop(TEXTS, tmp_path) == 0
