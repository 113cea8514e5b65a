"""Texts laid end to end are answered as they are alone, by every transformer that takes them so."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer
from transformers import (
    AutoModel,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    RobertaConfig,
)

from mlops_assets.training import artefact
from mlops_assets.training.artefact import Predictor
from mlops_assets.training.export import export_model, largest_difference
from mlops_assets.training.network import Classifier, Head, SentenceEncoder
from mlops_assets.training.packing import laid_out, pack
from tests.training import tiny

SHAPE = {
    "vocab_size": len(tiny.WORDS) + len(tiny.SPECIAL),
    "hidden_size": tiny.WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
MODERN = SHAPE | {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3}
TAKE_PACKED_TEXTS = {
    "bert": BertConfig(**SHAPE),
    "roberta, counting positions from behind the pad token": RobertaConfig(**SHAPE, pad_token_id=0),
    "mpnet, with relative positions": MPNetConfig(**SHAPE),
    "modernbert, with rotary positions": ModernBertConfig(**MODERN),
    "distilbert": DistilBertConfig(
        vocab_size=SHAPE["vocab_size"], dim=tiny.WIDTH, n_layers=2, n_heads=2, hidden_dim=32
    ),
}
TAKE_PADDED_TEXTS_ALONE = {
    "deberta, which makes its mask itself": DebertaV2Config(
        **SHAPE, relative_attention=True, pos_att_type=["p2c", "c2p"]
    ),
    # Its window is made from the mask, too; it shows in texts that are longer than the window.
    "modernbert, with a window shorter than a text": ModernBertConfig(**MODERN, local_attention=8),
}

TRIED = [[2, 4, 3], [2, 6, 7, 8, 9, 3], [2, 15, 14, 13, 3]]
# Of other lengths and in another order than what was tried.
OTHERS = [[2, 9, 8, 7, 6, 5, 4, 10, 11, 12, 13, 3], [2, 3], [2, 14, 14, 3], [2, 9, 5, 3]]
TEXTS = ["hello", "where is my order", "i want a refund for my broken order thanks", "bye bye"] * 10


def classifier(config: PreTrainedConfig) -> Classifier:
    torch.manual_seed(1)
    transformer = AutoModel.from_config(config, attn_implementation="eager")
    head = Head(tiny.WIDTH, len(tiny.DEFAULTS), len(tiny.LABELS), hidden_units=8, dropout=0.1)
    return Classifier(SentenceEncoder(transformer, tiny.WIDTH), head).eval()


@pytest.mark.parametrize("config", TAKE_PACKED_TEXTS.values(), ids=TAKE_PACKED_TEXTS.keys())
def test_packed_texts_are_answered_as_they_are_alone(config: PreTrainedConfig) -> None:
    network = classifier(config)
    packed = pack(network, TRIED)
    assert packed is not None
    features = torch.rand(len(OTHERS), len(tiny.DEFAULTS))
    with torch.inference_mode():
        together, _ = packed(**laid_out(OTHERS), features=features)
        alone = [
            network(torch.tensor([text]), torch.ones(1, len(text), dtype=torch.int64), features[[row]])[0]
            for row, text in enumerate(OTHERS)
        ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("config", TAKE_PADDED_TEXTS_ALONE.values(), ids=TAKE_PADDED_TEXTS_ALONE.keys())
def test_a_transformer_that_takes_no_packed_texts_is_exported_for_padded_ones(
    config: PreTrainedConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = classifier(config)
    export_model(network, tiny.write_tokenizer(tmp_path / "t.json"), tiny.manifest(), tmp_path / "model", TEXTS[:3])
    assert "padded batches alone" in caplog.text
    assert largest_difference(network, Predictor.load(tmp_path / "model", expected_digest=None), TEXTS) < 1e-5


def test_a_transformer_whose_packed_answers_differ_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = classifier(TAKE_PACKED_TEXTS["bert"])
    transformer = network.encoder.transformer

    def deaf_to_the_mask(attention_mask: torch.Tensor, **inputs: torch.Tensor) -> object:
        return type(transformer).forward(transformer, attention_mask=torch.zeros_like(attention_mask), **inputs)

    whole = transformer.forward
    monkeypatch.setattr(
        transformer,
        "forward",
        lambda position_ids=None, **inputs: (
            whole(**inputs) if position_ids is None else deaf_to_the_mask(position_ids=position_ids, **inputs)
        ),
    )
    assert pack(network, TRIED) is None


def encodings(lengths: list[int]) -> list[Encoding]:
    tokenizer = Tokenizer(artefact.Tokenizer.from_str(_WORDS).model)
    return tokenizer.encode_batch([["x"] * length for length in lengths], is_pretokenized=True)


_WORDS = '{"model": {"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "x"}}'


@given(st.lists(st.integers(0, 300), max_size=40))
def test_a_run_holds_what_fits_and_every_text_is_in_one(lengths: list[int]) -> None:
    runs = list(artefact._runs(range(len(lengths)), encodings(lengths)))
    assert [row for run in runs for row in run] == list(range(len(lengths)))
    for run in runs:
        assert len(run) == 1 or sum(lengths[row] for row in run) <= artefact._TOKENS
    for run, following in pairwise(runs):
        assert sum(lengths[row] for row in run) + lengths[following[0]] > artefact._TOKENS
