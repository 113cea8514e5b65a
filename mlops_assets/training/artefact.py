"""The exported model: one folder that says what it is, and the predictor that runs it.

Knows the folder's format (ONNX network, tokenizer, manifest with digests) and how text and customer
features become probabilities. It needs numpy, onnxruntime and tokenizers alone, so that serving and
the latency gate run the very same code; how the folder is made is left to `mlops_assets.training.export`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from mlops_assets.storage import digest_file, read_json

if TYPE_CHECKING:
    import onnxruntime

FORMAT = 1
MANIFEST = "manifest.json"
NETWORK = "model.onnx"
TOKENIZER = "tokenizer.json"
TEXT_IDS = "text_ids"  # the input that only a network for packed texts has

# Of one run of the network: in longer runs attention takes over, shorter ones pay the call's overhead more often.
# Between 70 and 150 all are alike, so a chunk of the endpoint's eight short texts should not be torn in two.
_TOKENS = 160


class ArtefactError(RuntimeError):
    """An exported model cannot be used as it stands; the message names the file and what to do."""


@dataclass(frozen=True)
class Manifest:
    """What an exported folder says about itself.

    `temperature` divides the logits before the softmax (calibration on validation rows).
    """

    labels: tuple[str, ...]
    feature_defaults: Mapping[str, float]
    max_tokens: int
    temperature: float = 1.0
    encoder: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the feature columns, in the order that the network takes them."""
        return tuple(self.feature_defaults)

    def to_document(self) -> dict[str, Any]:
        """The manifest as it stands in ``manifest.json``."""
        return {
            "format": FORMAT,
            "labels": list(self.labels),
            "features": {"names": list(self.feature_names), "defaults": dict(self.feature_defaults)},
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "encoder": dict(self.encoder),
            "digests": dict(self.digests),
        }


@dataclass(frozen=True)
class Prediction:
    """Answers for n messages: `probabilities` (n, labels) and `embeddings` (n, d), both float32."""

    probabilities: NDArray[np.float32]
    embeddings: NDArray[np.float32]


def artefact_digest(folder: Path) -> str:
    """SHA-256 of the manifest; as the manifest holds the digest of every other file, it covers them all."""
    return digest_file(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """Read ``manifest.json``.

    Raises:
        ArtefactError: it is missing, no JSON, of another format, or a field is missing or senseless.
    """
    try:
        return _parse_manifest(read_json(folder / MANIFEST))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{folder / MANIFEST} is no usable manifest ({error}); export the model again") from error


def verify(folder: Path, *, expected_digest: str | None) -> Manifest:
    """Check every file of an exported folder against its digest, before any of them is loaded.

    Raises:
        ArtefactError: the manifest is not the one expected, or a file is missing or was changed.
    """
    manifest = read_manifest(folder)
    actual = artefact_digest(folder)
    if expected_digest is not None and actual != expected_digest:
        raise ArtefactError(
            f"{folder / MANIFEST} has digest {actual}, not {expected_digest}: it was changed or swapped"
        )
    for name in (NETWORK, TOKENIZER):
        path, recorded = folder / name, manifest.digests.get(name)
        if not path.is_file():
            raise ArtefactError(f"{path} is missing; export the model again")
        if digest_file(path) != recorded:
            raise ArtefactError(f"{path} does not match the digest in its manifest; export the model again")
    return manifest


def require_declared(manifest: Manifest, labels: Collection[str], features: Collection[str]) -> None:
    """Make sure that a model answers with declared labels alone, and asks for declared features alone.

    Raises:
        ArtefactError: it names what is not declared.
    """
    for field_name, theirs, declared in (
        ("data.labels", manifest.labels, labels),
        ("features.defaults", manifest.feature_names, features),
    ):
        strangers = [name for name in theirs if name not in declared]
        if strangers:
            raise ArtefactError(
                f"the model has {', '.join(strangers)}, which {field_name} does not declare "
                f"(it has {', '.join(declared) or 'none'}); declare it there, or export the model without it"
            )


def softmax(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Probabilities (n, c) of `logits` (n, c), softened (temperature > 1) or sharpened (< 1).

    >>> softmax(np.array([[0.0, 0.0]], dtype=np.float32), 1.0).tolist()
    [[0.5, 0.5]]
    """
    scaled = logits / np.float32(temperature)
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def feature_rows(names: Sequence[str], records: Iterable[Mapping[str, float | None]]) -> NDArray[np.float32]:
    """Feature vectors (n, f) of looked-up values by name; absent ones become NaN, for which a predictor has defaults.

    >>> feature_rows(["a", "b"], [{"a": 1.0}, {"b": None}]).tolist()
    [[1.0, nan], [nan, nan]]
    """
    rows = [[np.nan if record.get(name) is None else record[name] for name in names] for record in records]
    return np.array(rows, dtype=np.float32).reshape(len(rows), len(names))


class Predictor:
    """Runs one exported model on the CPU; safe to call from several threads at once."""

    def __init__(
        self,
        manifest: Manifest,
        digest: str,
        tokenizer: Tokenizer,
        pad_id: int,
        session: onnxruntime.InferenceSession,
        threads: int,
    ) -> None:
        self.manifest = manifest
        self.digest = digest
        self._tokenizer = tokenizer
        self._pad_id = pad_id
        self._session = session
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        # A network exported from a transformer that takes no packed texts takes them padded.
        self._packs = any(taken.name == TEXT_IDS for taken in session.get_inputs())
        self._defaults = np.array(list(manifest.feature_defaults.values()), dtype=np.float32)

    @classmethod
    def load(cls, folder: Path, *, expected_digest: str | None, threads: int = 1) -> Predictor:
        """Verify an exported folder, then load it.

        Args:
            folder: as `mlops_assets.training.export.export_model` wrote it.
            expected_digest: `artefact_digest` as the registry recorded it; None trusts the folder.
            threads: that share the runs of a call. Each run is on one thread: two that share its operations take a
                fifth longer than two that each have runs of their own, and one per replica serves the most.

        Raises:
            ArtefactError: a digest does not match, or a file cannot be loaded.
        """
        folder = Path(folder)
        manifest = verify(folder, expected_digest=expected_digest)
        try:
            tokenizer, pad_id = load_tokenizer(folder / TOKENIZER, manifest.max_tokens)
            session = _open_session(folder / NETWORK)
        except Exception as error:  # the Rust and C++ loaders raise many types, some of them bare Exception
            raise ArtefactError(f"{folder} cannot be loaded: {error}") from error
        return cls(manifest, artefact_digest(folder), tokenizer, pad_id, session, threads)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the probability columns."""
        return self.manifest.labels

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The feature columns, in the order that `predict` takes them."""
        return self.manifest.feature_names

    @property
    def feature_defaults(self) -> dict[str, float]:
        """What stands in for a feature that could not be looked up."""
        return dict(self.manifest.feature_defaults)

    def tokenize(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token ids and attention mask of some texts, both (n, t), t the longest of them."""
        padded = self._pad(self._tokenizer.encode_batch_fast(list(texts)))
        return padded["input_ids"], padded["attention_mask"]

    def predict(self, texts: Sequence[str], features: NDArray[np.float32]) -> Prediction:
        """Classify n messages.

        Args:
            texts: n messages; tokens beyond the manifest's `max_tokens` are cut off.
            features: (n, f) in the order of `feature_names`; a value that is not finite takes its default.

        Raises:
            ValueError: `features` has another shape than (n, f).
        """
        filled = self._fill(features, len(texts))
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        order = sorted(range(len(texts)), key=lambda i: len(encodings[i].ids))
        spread = self._pool.map if self._pool else map
        outputs = list(
            spread(lambda rows: self._run([encodings[i] for i in rows], filled[rows]), _runs(order, encodings))
        )
        if not outputs:
            width = self._session.get_outputs()[1].shape[1]
            return Prediction(np.empty((0, len(self.labels)), np.float32), np.empty((0, width), np.float32))
        back = np.argsort(order)
        logits = np.concatenate([output[0] for output in outputs])[back]
        embeddings = np.concatenate([output[1] for output in outputs])[back]
        return Prediction(softmax(logits, self.manifest.temperature), embeddings)

    def _run(self, encodings: list[Encoding], features: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        tokens = lay_out([encoding.ids for encoding in encodings]) if self._packs else self._pad(encodings)
        return self._session.run(["logits", "embedding"], {**tokens, "features": features})

    def _fill(self, features: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
        expected = (rows, len(self._defaults))
        if np.shape(features) != expected:
            raise ValueError(f"features must have shape {expected} ({', '.join(self.feature_names)})")
        return np.where(np.isfinite(features), features, self._defaults).astype(np.float32)

    def _pad(self, encodings: Sequence[Encoding]) -> dict[str, NDArray[np.int64]]:
        longest = max((len(encoding.ids) for encoding in encodings), default=0)
        ids = np.full((len(encodings), longest), self._pad_id, dtype=np.int64)
        mask = np.zeros((len(encodings), longest), dtype=np.int64)
        for row, encoding in enumerate(encodings):
            length = len(encoding.ids)
            ids[row, :length] = encoding.ids
            mask[row, :length] = 1
        return {"input_ids": ids, "attention_mask": mask}


def lay_out(texts: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int64]]:
    """Token ids of some texts end to end, each array (t,), by the inputs that a network for packed texts has.

    >>> {name: ids.tolist() for name, ids in lay_out([[101, 7, 102], [101, 102]]).items()}
    {'input_ids': [101, 7, 102, 101, 102], 'position_ids': [0, 1, 2, 0, 1], 'text_ids': [0, 0, 0, 1, 1]}
    """
    lengths = [len(text) for text in texts]
    return {
        "input_ids": np.concatenate([np.array(text, np.int64) for text in texts]),
        "position_ids": np.concatenate([np.arange(length) for length in lengths]),
        TEXT_IDS: np.repeat(np.arange(len(lengths)), lengths),
    }


def _runs(order: Iterable[int], encodings: Sequence[Encoding]) -> Iterator[list[int]]:
    """The rows in that order, in groups of at most `_TOKENS` tokens; a longer text is alone."""
    run: list[int] = []
    tokens = 0
    for row in order:
        length = len(encodings[row].ids)
        if run and tokens + length > _TOKENS:
            yield run
            run, tokens = [], 0
        run.append(row)
        tokens += length
    if run:
        yield run


def _parse_manifest(document: dict[str, Any]) -> Manifest:
    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']}; this code reads format {FORMAT}")
    names, defaults = document["features"]["names"], document["features"]["defaults"]
    manifest = Manifest(
        labels=tuple(document["labels"]),
        feature_defaults={name: float(defaults[name]) for name in names},
        max_tokens=int(document["max_tokens"]),
        temperature=float(document["temperature"]),
        encoder=document["encoder"],
        digests=document["digests"],
    )
    if not manifest.temperature > 0:
        raise ValueError(f"temperature {manifest.temperature} is not positive")
    return manifest


def load_tokenizer(path: Path, max_tokens: int) -> tuple[Tokenizer, int]:
    """A tokenizer that cuts texts at `max_tokens` and does not pad them, and the id that pads."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(max_tokens)
    padding = tokenizer.padding or {}
    tokenizer.no_padding()  # where texts are padded at all, each run is by itself
    return tokenizer, padding.get("pad_id", 0)


def _open_session(path: Path) -> onnxruntime.InferenceSession:
    import onnxruntime  # 20 MB in each process of the endpoint, and not all of them run a network

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # one would be kept for each shape of a batch
    # Of the operations that it would fuse, this one takes four times as long as its parts (onnxruntime 1.32, AVX2).
    slower_fused = ["SkipLayerNormFusion"]
    return onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=slower_fused
    )
