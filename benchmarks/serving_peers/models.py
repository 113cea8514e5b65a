"""One trained classifier in the forms that the servers take, and the messages that they are sent.

Everything comes from the embedded world with a fixed seed: a head fitted on frozen MiniLM embeddings, exported and
made small as the product does it, and the same network as an MLflow torch model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from mlops_assets.resources.mlflow_store import quiet_mlflow
from mlops_assets.simulation.world import generate
from mlops_assets.spec import ModelSpec
from mlops_assets.training.artefact import Manifest
from mlops_assets.training.embedding_cache import embed
from mlops_assets.training.encoder import Encoder, resolve
from mlops_assets.training.examples import Examples, from_frame
from mlops_assets.training.export import derive_artefact, export_model
from mlops_assets.training.fit import TrialConfig, fit
from mlops_assets.training.network import Classifier, Head, SentenceEncoder
from mlops_assets.training.quantization import quantize

CUSTOMERS = 4_000
SEED = 20260301
TRAIN_ROWS, VALIDATION_ROWS = 600, 200

# Weights of the head and of the encoder, as `torch_pyfunc` reads them.
HEAD = "head.pt"


@dataclass(frozen=True)
class Message:
    """One request's content."""

    text: str
    customer_id: str


@dataclass(frozen=True)
class Exported:
    """An exported folder and its digest."""

    folder: Path
    digest: str


@dataclass(frozen=True)
class Models:
    """The classifier, several times.

    Attributes:
        stable: the product's export: texts are packed end to end.
        canary: the same network under another digest, for the canary arm.
        padded: the same weights in the usual form: a batch is padded to its longest text.
        precision: of all three: ``int8``, unless this machine's arithmetic rounds too coarsely for it.
        torch: an MLflow model that runs torch.
        onnx: an MLflow model that runs `stable`, as the product logs it.
    """

    stable: Exported
    canary: Exported
    padded: Exported
    precision: str
    torch: Path
    onnx: Path


class PaddedAlone(nn.Module):
    """A transformer that takes no positions, so that nothing can be packed for it."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return self.transformer(input_ids=input_ids, attention_mask=attention_mask)


def messages(spec: ModelSpec) -> list[Message]:
    """One message of each customer."""
    texts = [text for text in _history(spec)["text"] if len(text) <= spec.data.max_text_length]
    return [Message(texts[i % len(texts)], f"C-{i}") for i in range(CUSTOMERS)]


def build(spec: ModelSpec, folder: Path) -> Models:
    """Fit, export, quantize and package."""
    encoder = resolve(spec.encoder)
    train, validation = _examples(spec, encoder, folder / "embeddings")
    fitted = fit(train, validation, TrialConfig(seed=SEED), encoder, len(spec.data.labels), lambda *_: None)
    manifest = Manifest(
        labels=spec.data.labels, feature_defaults=spec.features.defaults, max_tokens=spec.encoder.max_tokens
    )
    stable, canary, padded = folder / "stable", folder / "canary", folder / "padded"
    sentences = encoder.load()
    forms = {stable: sentences, padded: SentenceEncoder(PaddedAlone(sentences.transformer), sentences.width)}
    made = {}
    for target, form in forms.items():
        export_model(Classifier(form, fitted.head), encoder.tokenizer_file, manifest, target, validation.texts[:16])
        # On rows that it knows: speed is measured here, accuracy elsewhere.
        made[target] = quantize(target, train.texts, train.features, train.labels)
    digest = derive_artefact(stable, canary, {"temperature": 1.1})
    return Models(
        Exported(stable, made[stable].digest),
        Exported(canary, digest),
        Exported(padded, made[padded].digest),
        " and ".join(sorted({one.precision for one in made.values()})),
        _torch_model(spec, encoder, fitted.head, folder),
        _onnx_model(stable, made[stable].digest, folder / "mlflow-onnx"),
    )


def _history(spec: ModelSpec) -> pl.DataFrame:
    frame = generate(seed=SEED).history
    return frame.filter(pl.col("label").is_in(list(spec.data.labels)) & (pl.col("text").str.len_chars() > 0))


def _examples(spec: ModelSpec, encoder: Encoder, cache: Path) -> tuple[Examples, Examples]:
    rows = _history(spec).unique("text", maintain_order=True).sample(TRAIN_ROWS + VALIDATION_ROWS, seed=SEED)
    rows = rows.with_columns(pl.lit(value).alias(name) for name, value in spec.features.defaults.items())

    def part(frame: pl.DataFrame) -> Examples:
        vectors = embed(frame["text"].to_list(), encoder, cache)
        return from_frame(frame, spec.data.labels, spec.features.defaults, vectors)

    return part(rows[:TRAIN_ROWS]), part(rows[TRAIN_ROWS:])


def _torch_model(spec: ModelSpec, encoder: Encoder, head: Head, folder: Path) -> Path:
    weights = folder / HEAD
    torch.save(head.state_dict(), weights)
    target = folder / "mlflow-torch"
    _save_pyfunc(
        target,
        Path(__file__).with_name("torch_pyfunc.py"),
        {"encoder": encoder.folder, "head": weights},
        {
            "labels": list(spec.data.labels),
            "defaults": list(spec.features.defaults.values()),
            "max_tokens": spec.encoder.max_tokens,
            "width": encoder.width,
        },
    )
    return target


def _onnx_model(artefact: Path, digest: str, target: Path) -> Path:
    from mlops_assets.resources import pyfunc_model

    _save_pyfunc(target, Path(pyfunc_model.__file__), {"artefact": artefact}, {"digest": digest})
    return target


def _save_pyfunc(target: Path, code: Path, artifacts: dict[str, Path], config: dict[str, object]) -> None:
    quiet_mlflow()
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    mlflow.pyfunc.save_model(
        target,
        python_model=str(code),
        artifacts={name: str(path) for name, path in artifacts.items()},
        model_config=config,
        signature=ModelSignature(inputs=Schema([ColSpec(DataType.string, "text")])),
        pip_requirements=["mlflow"],
    )


def features(spec: ModelSpec, sent: Sequence[Message], now: datetime) -> pl.DataFrame:
    """A profile of every sender, as it is pushed into the feature store."""
    rng = np.random.default_rng(SEED)
    columns = {name: rng.gamma(2.0, 3.0, len(sent)) for name in spec.features.defaults}
    frame = pl.DataFrame({"customer_id": [message.customer_id for message in sent], **columns})
    return frame.with_columns(event_timestamp=pl.lit(now), created_timestamp=pl.lit(now))
