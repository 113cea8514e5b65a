"""Turns a trained network into the folder that serving runs, and proves that it answers the same.

Encoder and head go into one ONNX file with both outputs (logits, embedding). The folder appears whole
or not at all; its format is `mlops_assets.training.artefact`'s, where it is stored is the caller's matter.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from mlops_assets.storage import digest_file, write_json
from mlops_assets.training.artefact import (
    MANIFEST,
    NETWORK,
    TOKENIZER,
    Manifest,
    Predictor,
    artefact_digest,
    load_tokenizer,
    read_manifest,
    softmax,
)
from mlops_assets.training.network import Classifier
from mlops_assets.training.packing import laid_out, pack
from mlops_assets.training.shapes import fix_shapes
from mlops_assets.training.threads import one_thread_per_operation

# With onnxruntime 1.32 opsets 14, 17 and 18 run alike; from 17 on layer normalisation is one operation.
OPSET = 17
MAX_PROBABILITY_DIFFERENCE = 1e-3

logger = logging.getLogger(__name__)


class ExportError(RuntimeError):
    """The exported network does not answer as the trained one does; it must not be released."""


def export_model(
    classifier: Classifier, tokenizer_file: Path, manifest: Manifest, folder: Path, samples: Sequence[str]
) -> str:
    """Write one exported model and compare it with the network it came from.

    Args:
        classifier: left in eval mode, on the CPU.
        tokenizer_file: the encoder's ``tokenizer.json``.
        manifest: what the folder says of itself; its digests are filled in here.
        folder: where it appears; an earlier export there is replaced.
        samples: messages on which both must agree.

    Returns:
        The digest of the folder, as `Predictor.load` expects it.

    Raises:
        ExportError: a probability differs by more than 1e-3.
    """
    classifier.eval().cpu()
    with one_thread_per_operation():
        _export(classifier, tokenizer_file, manifest, folder, samples)
    return artefact_digest(folder)


def derive_artefact(source: Path, target: Path, changes: Mapping[str, Any]) -> str:
    """Copy an exported model with some manifest fields changed, e.g. ``{"temperature": 2.0}``; returns its digest.

    Meant for drills: a version that is wrong on purpose (`labels` in another order), say.
    """
    with draft_of(target) as draft:
        for name in (NETWORK, TOKENIZER):
            shutil.copyfile(source / name, draft / name)
        write_manifest(draft, replace(read_manifest(source), **changes))
        swap_in(draft, target)
    return artefact_digest(target)


def largest_difference(classifier: Classifier, predictor: Predictor, samples: Sequence[str]) -> float:
    """The largest absolute difference in a probability between the trained and the exported network."""
    defaults = list(predictor.feature_defaults.values())
    features = np.tile(np.array(defaults, dtype=np.float32), (len(samples), 1))
    exported = predictor.predict(samples, features).probabilities
    input_ids, mask = predictor.tokenize(samples)
    with torch.inference_mode():
        logits, _ = classifier(torch.from_numpy(input_ids), torch.from_numpy(mask), torch.from_numpy(features))
    trained = softmax(logits.numpy(), predictor.manifest.temperature)
    return float(np.abs(exported - trained).max())


def _export(
    classifier: Classifier, tokenizer_file: Path, manifest: Manifest, folder: Path, samples: Sequence[str]
) -> None:
    with draft_of(folder) as draft:
        _write_tokenizer(tokenizer_file, draft / TOKENIZER, manifest.max_tokens)
        _write_network(classifier, draft, manifest, samples)
        write_manifest(draft, manifest)
        difference = largest_difference(classifier, Predictor.load(draft, expected_digest=None), samples)
        if not difference <= MAX_PROBABILITY_DIFFERENCE:
            raise ExportError(
                f"{folder}: exported and trained network differ by {difference:.2e} in a probability "
                f"(limit {MAX_PROBABILITY_DIFFERENCE:g}); the encoder may use an operation that ONNX rounds differently"
            )
        swap_in(draft, folder)


def _write_tokenizer(source: Path, target: Path, max_tokens: int) -> None:
    tokenizer = Tokenizer.from_file(str(source))
    tokenizer.enable_truncation(max_tokens)
    padding = tokenizer.padding or {}
    tokenizer.no_padding()
    # The pad token is kept in the file, its length is not: the predictor pads each batch by itself.
    tokenizer.enable_padding(pad_id=padding.get("pad_id", 0), pad_token=padding.get("pad_token", "[PAD]"))
    tokenizer.save(str(target))


def _write_network(classifier: Classifier, draft: Path, manifest: Manifest, samples: Sequence[str]) -> None:
    """The network for packed texts, or for padded ones where its transformer takes no others."""
    tokenizer, _ = load_tokenizer(draft / TOKENIZER, manifest.max_tokens)
    texts = [encoding.ids for encoding in tokenizer.encode_batch(list(samples))]
    longest = list(islice(cycle(chain.from_iterable(texts)), manifest.max_tokens))
    packed = pack(classifier, [*texts, longest])
    features = torch.zeros(2, len(manifest.feature_names))
    if packed is None:
        logger.warning("the encoder takes padded batches alone; its endpoint will do about a quarter more work")
        tokens = torch.ones(2, 8, dtype=torch.int64)
        padded = {"input_ids": tokens, "attention_mask": tokens.clone(), "features": features}
        _trace(classifier, draft / NETWORK, padded, {0: "n", 1: "t"})
    else:
        _trace(packed, draft / NETWORK, {**laid_out([[1] * 5, [1] * 3]), "features": features}, {0: "t"})
        fix_shapes(draft / NETWORK)


def _trace(network: nn.Module, path: Path, inputs: Mapping[str, torch.Tensor], token_axes: Mapping[int, str]) -> None:
    axes = dict.fromkeys(inputs, token_axes) | {name: {0: "n"} for name in ("features", "logits", "embedding")}
    with warnings.catch_warnings():
        # The tracer warns of shapes that transformers reads as Python numbers; the comparison proves them harmless.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=["logits", "embedding"],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a folder's manifest with the digests of the files that lie there now."""
    digests = {name: digest_file(folder / name) for name in (NETWORK, TOKENIZER)}
    write_json(folder / MANIFEST, replace(manifest, digests=digests).to_document())


@contextmanager
def draft_of(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder`, for `swap_in`; what was not swapped in is removed at the end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def swap_in(draft: Path, folder: Path) -> None:
    """Put a finished folder in the place of `folder`."""
    if folder.exists():
        shutil.rmtree(folder)
    draft.chmod(0o755)
    draft.rename(folder)
