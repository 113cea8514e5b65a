"""A whole encoder in miniature: a random two-layer BERT over a dozen words, with a real tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from mlops_assets.training.artefact import Manifest
from mlops_assets.training.network import Classifier, Head, SentenceEncoder

WORDS = ("hello", "bye", "where", "is", "my", "order", "i", "want", "a", "refund", "thanks", "broken")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
LABELS = ("greeting", "order_status", "refund")
DEFAULTS = {"orders_90d": 0.0, "spend_90d": 12.5}
WIDTH = 16


def write_encoder(folder: Path) -> Path:
    """Save the miniature encoder as a transformers folder (config, safetensors, tokenizer.json)."""
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(WORDS) + len(SPECIAL),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    write_tokenizer(folder / "tokenizer.json")
    return folder


def write_tokenizer(path: Path) -> Path:
    vocabulary = {word: number for number, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(path))
    return path


def classifier(folder: Path) -> Classifier:
    transformer = BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="eager")
    torch.manual_seed(2)
    head = Head(WIDTH, len(DEFAULTS), len(LABELS), hidden_units=8, dropout=0.1)
    return Classifier(SentenceEncoder(transformer, WIDTH), head).eval()


def manifest(**changes: object) -> Manifest:
    fields: dict[str, object] = {"labels": LABELS, "feature_defaults": DEFAULTS, "max_tokens": 16}
    return Manifest(**(fields | changes))  # type: ignore[arg-type]
