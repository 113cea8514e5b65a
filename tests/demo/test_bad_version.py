"""The demo's bad version is bad in the two ways it claims, and in no other."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mlops_assets.demo.bad_version import make_bad_version
from mlops_assets.training.artefact import Predictor
from mlops_assets.training.export import export_model
from tests.training import tiny


@pytest.fixture(scope="module")
def predictors(tmp_path_factory: pytest.TempPathFactory) -> tuple[Predictor, Predictor]:
    home = tmp_path_factory.mktemp("bad")
    encoder = tiny.write_encoder(home / "encoder")
    network = tiny.classifier(encoder)
    export_model(network, encoder / "tokenizer.json", tiny.manifest(), home / "good", samples=["hello"])
    make_bad_version(home / "good", home / "bad", at_least_ms=50)
    good, bad = (Predictor.load(home / name, expected_digest=None) for name in ("good", "bad"))
    return good, bad


@pytest.mark.slow
def test_it_finds_the_same_classes_under_another_name(predictors: tuple[Predictor, Predictor]) -> None:
    texts, features = ["hello", "where is my order"], np.zeros((2, 2), np.float32)
    good, bad = (predictor.predict(texts, features).probabilities for predictor in predictors)
    np.testing.assert_allclose(good, bad, atol=1e-6)
    assert set(predictors[1].labels) == set(tiny.LABELS)
    assert all(right != wrong for right, wrong in zip(*(predictor.labels for predictor in predictors), strict=True))


@pytest.mark.slow
def test_it_takes_many_times_as_long(predictors: tuple[Predictor, Predictor]) -> None:
    good, bad = (seconds(predictor) for predictor in predictors)
    assert bad > 20 * good


def seconds(predictor: Predictor) -> float:
    """The fastest of a few single messages, in seconds of processor time: other work on the machine adds none."""
    taken = []
    for _ in range(5):
        began = time.process_time()
        predictor.predict(["hello"], np.zeros((1, 2), np.float32))
        taken.append(time.process_time() - began)
    return min(taken)
