"""Texts end to end in one row, instead of padded to the longest of a batch: no token is computed for nothing.

Each token attends to its own text alone, at the position that it has there, so the answers are those of a padded
batch (Krell et al., "Efficient Sequence Packing without Cross-contamination", 2021). Whether a transformer can be
fed like that is tried, not assumed; how texts are laid out is `mlops_assets.training.artefact`'s.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlops_assets.training.artefact import lay_out
from mlops_assets.training.network import Classifier

# Of a coordinate of vectors of length one; the sums are the same, in another order.
_TOLERANCE = 1e-4
_UNSEEN = -1e9

logger = logging.getLogger(__name__)


class PackedClassifier(nn.Module):
    """A classifier of n texts whose t tokens lie end to end.

    Takes `input_ids` (t,), `position_ids` (t,) that start at 0 in each text, `text_ids` (t,) with the number of each
    token's text, and raw `features` (n, f); gives logits (n, c) and embeddings (n, d) as the classifier itself does.
    """

    def __init__(self, classifier: Classifier, first_position: int) -> None:
        super().__init__()
        self.transformer = classifier.encoder.transformer
        self.head = classifier.head
        self.width = classifier.encoder.width
        self.first_position = first_position

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, text_ids: Tensor, features: Tensor
    ) -> tuple[Tensor, Tensor]:
        embedding = self.embed(input_ids, position_ids, text_ids, features.shape[0])
        return self.head(embedding, features), embedding

    def embed(self, input_ids: Tensor, position_ids: Tensor, text_ids: Tensor, texts: int) -> Tensor:
        """Vectors (texts, d) of length one."""
        foreign = (text_ids.unsqueeze(0) != text_ids.unsqueeze(1)).to(torch.float32)
        states = self.transformer(
            input_ids=input_ids.unsqueeze(0),
            attention_mask=(foreign * _UNSEEN).unsqueeze(0).unsqueeze(0),
            position_ids=position_ids.unsqueeze(0) + self.first_position,
        ).last_hidden_state[0]
        members = (torch.arange(texts).unsqueeze(1) == text_ids.unsqueeze(0)).to(states.dtype)
        pooled = (members @ states) / members.sum(dim=1, keepdim=True).clamp(min=1.0)
        # The last step tells ONNX how wide a vector is, which it loses on the way.
        return nn.functional.normalize(pooled, dim=1).reshape(-1, self.width)


def pack(classifier: Classifier, texts: Sequence[Sequence[int]]) -> PackedClassifier | None:
    """The classifier for packed texts; None where its transformer does not answer them as it answers single ones.

    Args:
        classifier: on the CPU, in eval mode.
        texts: token ids of some texts, on which it is tried; among them one of the greatest length, as a transformer
            may look at long texts through a window.
    """
    transformer = classifier.encoder.transformer
    if "position_ids" not in inspect.signature(transformer.forward).parameters:
        return None
    # RoBERTa and its kin count positions from behind the pad token's number.
    for first_position in (0, (transformer.config.pad_token_id or 0) + 1):
        packed = PackedClassifier(classifier, first_position)
        if _answers_alike(packed, classifier.encoder, texts):
            return packed.eval()
    return None


def laid_out(texts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """What a `PackedClassifier` takes of the token ids of some texts, each (t,)."""
    return {name: torch.from_numpy(ids) for name, ids in lay_out(texts).items()}


def _answers_alike(packed: PackedClassifier, encoder: nn.Module, texts: Sequence[Sequence[int]]) -> bool:
    with torch.inference_mode():
        alone = [encoder(torch.tensor([text]), torch.ones(1, len(text), dtype=torch.int64)) for text in texts]
        try:
            together = packed.embed(**laid_out(texts), texts=len(texts))
        except Exception as error:  # noqa: BLE001 - whatever a transformer raises then, it cannot be fed like this
            logger.info("the encoder takes no packed texts: %s", error)
            return False
    return bool((together - torch.cat(alone)).abs().max() <= _TOLERANCE)
