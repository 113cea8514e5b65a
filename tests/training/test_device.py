"""Training keeps to its device: nothing is left on the CPU that belongs on a GPU, and what it gives is on the CPU.

Torch's `meta` device stands for the GPU: it refuses to mix devices as CUDA does, on every machine. It has no numbers,
so wherever some are asked for, any will do. With a GPU, all other tests of training run on that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlops_assets.training import embedding_cache, fit
from mlops_assets.training.encoder import Finetune
from mlops_assets.training.fit import TrialConfig
from tests.training.factories import examples, tiny_encoder

ELSEWHERE = torch.device("meta")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training finds another device than the CPU, from which any number can be had."""

    def give(kind: type, name: str, any_number: Callable[[Any], Any]) -> None:
        real = getattr(kind, name)

        @wraps(real)
        def asked(self: Any, *args: Any, **more: Any) -> Any:
            there = self.is_meta if isinstance(self, Tensor) else any(part.is_meta for part in self.parameters())
            return any_number(self) if there else real(self, *args, **more)

        monkeypatch.setattr(kind, name, asked)

    give(Tensor, "cpu", lambda tensor: torch.zeros(tensor.shape, dtype=tensor.dtype))
    give(Tensor, "tolist", lambda rows: list(range(len(rows))))
    give(Tensor, "__float__", lambda _: 0.5)
    give(Tensor, "__bool__", lambda _: False)
    give(Tensor, "item", lambda _: 0)
    give(nn.Module, "cpu", lambda module: module.to_empty(device="cpu"))
    adam = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, fused, **more: adam(groups, **more))  # noqa: ARG005
    for module in (fit, embedding_cache):
        monkeypatch.setattr(module, "best_device", lambda: ELSEWHERE)


@pytest.mark.slow
@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("finetune", ["head", "last_n", "full"])
def test_a_trial_mixes_no_devices_and_hands_over_on_the_cpu(encoder_folder: Path, finetune: Finetune) -> None:
    config = TrialConfig(seed=1, finetune=finetune, batch_size=16, epochs=2)
    fitted = fit.fit(
        examples(64, seed=1), examples(32, seed=2), config, tiny_encoder(encoder_folder), 3, lambda *_: None
    )
    handed = [*fitted.head.parameters(), *(fitted.encoder.parameters() if fitted.encoder else ())]
    assert {part.device.type for part in handed} == {"cpu"}
    assert (fitted.encoder is not None) == (finetune != "head")


@pytest.mark.usefixtures("gpu")
def test_embeddings_are_computed_on_the_device_and_come_back(encoder_folder: Path) -> None:
    encoder = tiny_encoder(encoder_folder)
    vectors = embedding_cache.run_encoder(encoder.load().to(ELSEWHERE), encoder, ["hello", "where is my order"])
    assert vectors.shape == (2, encoder.width)


def test_the_stand_in_refuses_to_mix_devices() -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(2, device=ELSEWHERE) + torch.ones(2)
