"""The classifier as a plain torch model behind MLflow's pyfunc; MLflow runs this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from tokenizers import Tokenizer
from transformers import AutoModel

from mlops_assets.training.network import Classifier, Head, SentenceEncoder


class TorchClassifier(PythonModel):
    """`predict` of a frame with column `text`: one row each of label and confidence."""

    def load_context(self, context: Any) -> None:
        config, folder = context.model_config, Path(context.artifacts["encoder"])
        self.labels = config["labels"]
        self.defaults = torch.tensor(config["defaults"], dtype=torch.float32)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(config["max_tokens"])
        self.tokenizer.enable_padding()
        state = torch.load(context.artifacts["head"], weights_only=True)
        hidden = state["hidden.weight"]
        head = Head(config["width"], len(self.defaults), len(self.labels), len(hidden), dropout=0.0)
        head.load_state_dict(state)
        encoder = SentenceEncoder(AutoModel.from_pretrained(folder, local_files_only=True), config["width"])
        self.network = Classifier(encoder, head).eval()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        encodings = self.tokenizer.encode_batch(list(model_input["text"]))
        ids = torch.tensor([encoding.ids for encoding in encodings])
        mask = torch.tensor([encoding.attention_mask for encoding in encodings])
        with torch.inference_mode():
            logits, _ = self.network(ids, mask, self.defaults.expand(len(encodings), -1))
        best = logits.softmax(dim=1).max(dim=1)
        return pd.DataFrame({"label": [self.labels[i] for i in best.indices], "confidence": best.values.numpy()})


set_model(TorchClassifier())
