"""Texts as token ids, padded batch by batch.

The serving predictor loads the same tokenizer, and pads by itself, so that it need not load torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlops_assets.training.artefact import load_tokenizer
from mlops_assets.training.encoder import Encoder


@dataclass(frozen=True)
class Tokens:
    """Token ids of n texts, each as long as its text."""

    ids: tuple[tuple[int, ...], ...]
    pad_id: int

    def batch(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Ids and attention mask of some rows, both (len(rows), longest of them) int64."""
        chosen = [self.ids[row] for row in rows]
        longest = max(map(len, chosen))
        ids = torch.full((len(chosen), longest), self.pad_id, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(chosen):
            ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
            mask[row, : len(tokens)] = 1
        return ids, mask


def tokenize(encoder: Encoder, texts: Sequence[str]) -> Tokens:
    """Token ids of some texts, cut at the encoder's `max_tokens`."""
    tokenizer, pad_id = load_tokenizer(encoder.tokenizer_file, encoder.max_tokens)
    return Tokens(tuple(tuple(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))), pad_id)
