"""The network: a sentence encoder, customer features scaled inside the graph, one hidden layer.

Knows tensors only. Because the scaling travels in the graph, serving hands over raw feature values;
where the encoder comes from, how the weights are fitted and how they are exported is left to others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# A standardised feature is cut here, so that one extreme customer cannot outvote the text.
_FEATURE_LIMIT = 3.0


class FeatureScaling(nn.Module):
    """Symmetric logarithm, then standardised, then clipped: heavy-tailed money and counts become tame."""

    mean: Tensor
    scale: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))

    def fit(self, features: NDArray[np.float32]) -> None:
        """Set mean and scale from training rows `features` (n, f); a constant feature keeps scale 1."""
        values = _symlog(torch.from_numpy(features))
        spread = values.std(dim=0, correction=0)
        self.mean.copy_(values.mean(dim=0))
        self.scale.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def forward(self, features: Tensor) -> Tensor:
        return ((_symlog(features) - self.mean) / self.scale).clamp(-_FEATURE_LIMIT, _FEATURE_LIMIT)


class Head(nn.Module):
    """Embedding (n, d) and raw features (n, f) to logits (n, c), by one hidden layer."""

    def __init__(self, width: int, n_features: int, n_labels: int, hidden_units: int, dropout: float) -> None:
        super().__init__()
        self.scaling = FeatureScaling(n_features)
        # An embedding of length one has entries of about 1/sqrt(d); brought to about 1, one learning rate fits all.
        self.gain = width**0.5
        self.input_dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(width + n_features, hidden_units)
        self.hidden_dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_units, n_labels)

    def forward(self, embedding: Tensor, features: Tensor) -> Tensor:
        joined = torch.cat([embedding * self.gain, self.scaling(features)], dim=1)
        hidden = nn.functional.relu(self.hidden(self.input_dropout(joined)))
        return self.output(self.hidden_dropout(hidden))


class SentenceEncoder(nn.Module):
    """A transformer, its token vectors averaged over the mask, brought to length one.

    Reimers and Gurevych, "Sentence-BERT", 2019 (mean pooling); the normalisation is the one that
    all-MiniLM-L6-v2 was trained with.
    """

    def __init__(self, transformer: PreTrainedModel, width: int) -> None:
        super().__init__()
        self.transformer = transformer
        self.width = width

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        pooled = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
        return nn.functional.normalize(pooled, dim=1)


class Classifier(nn.Module):
    """Encoder and head in one: token ids, mask and raw features to (logits, embedding)."""

    def __init__(self, encoder: SentenceEncoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.encoder(input_ids, attention_mask)
        return self.head(embedding, features), embedding


def copy_state(module: nn.Module) -> Mapping[str, Any]:
    """A detached copy of a module's weights, to come back to."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _symlog(values: Tensor) -> Tensor:
    return torch.sign(values) * torch.log1p(torch.abs(values))
