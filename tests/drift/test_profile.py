from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlops_assets.drift.profile import ProfileError, ReferenceProfile, Window, build_profile
from mlops_assets.drift.result import DriftInputError
from mlops_assets.drift.window import judge_window
from mlops_assets.spec import DriftSpec

LABELS = ("query", "refund", "other")


def rows(n: int, seed: int = 0) -> Window:
    """`n` rows of a quiet little world with every kind of column."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet((2, 1, 1), n)
    return Window(
        features={
            "spend/90d": np.where(rng.random(n) < 0.1, np.nan, rng.exponential(size=n)),
            "country": rng.choice(["DE", "FR", "UK"], n).astype(object),
        },
        probabilities=probabilities,
        predicted=np.array(LABELS)[probabilities.argmax(axis=1)],
        embeddings=rng.normal(size=(n, 6)).astype(np.float32),
    )


def test_a_profile_read_back_judges_as_the_one_that_was_saved(tmp_path: Path) -> None:
    repeated = {"independent": {"spend/90d": 0.5}, "independent_missing": {"spend/90d": 0.25}}
    profile = build_profile(replace(rows(800), **repeated), labels=LABELS, about={"snapshot": "abc"})
    again = ReferenceProfile.load(profile.save(tmp_path / "reference.safetensors"))
    assert again.about == {"snapshot": "abc"}
    assert judge_window(again, rows(200, 1), DriftSpec()) == judge_window(profile, rows(200, 1), DriftSpec())


def test_a_profile_without_predictions_and_embeddings_is_whole(tmp_path: Path) -> None:
    profile = build_profile(Window(features=rows(100).features))
    again = ReferenceProfile.load(profile.save(tmp_path / "reference.safetensors"))
    assert (again.probabilities, again.predicted, again.embeddings, again.rows) == (None, None, None, 100)


def test_the_kept_embeddings_are_a_bounded_seeded_sample_of_the_reference() -> None:
    reference = rows(300)
    kept = [build_profile(reference, labels=LABELS, embedding_rows=50, seed=1).embeddings for _ in range(2)]
    assert kept[0] is not None
    assert kept[0].shape == (50, 6)
    assert (kept[0] == kept[1]).all()
    assert set(map(bytes, kept[0])) <= set(map(bytes, reference.embeddings))


def test_damaged_files_and_other_formats_are_named(tmp_path: Path) -> None:
    path = build_profile(rows(100), labels=LABELS).save(tmp_path / "reference.safetensors")
    whole = path.read_bytes()
    for kept in (0, 5, 300, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(ProfileError, match=r"reference\.safetensors"):
            ReferenceProfile.load(path)
    with pytest.raises(ProfileError, match="absent"):
        ReferenceProfile.load(tmp_path / "absent.npz")
    path.write_bytes(whole.replace(b'\\"format\\": 3', b'\\"format\\": 9'))
    with pytest.raises(ProfileError, match="format 9"):
        ReferenceProfile.load(path)


def test_an_empty_or_ragged_reference_is_refused() -> None:
    with pytest.raises(ProfileError, match="no rows"):
        build_profile(Window())
    with pytest.raises(DriftInputError, match="feature b has 2"):
        build_profile(Window(features={"a": np.arange(3), "b": np.arange(2)}))


def test_a_reference_with_broken_outputs_is_refused() -> None:
    with pytest.raises(DriftInputError, match="probabilities"):
        build_profile(Window(probabilities=np.full((5, 3), np.nan)), labels=LABELS)


def test_a_loaded_profile_is_mapped_so_that_a_small_window_does_not_read_the_whole_reference(tmp_path: Path) -> None:
    profile = build_profile(Window(features={"spend": np.random.default_rng(0).normal(size=300_000)}))
    loaded = ReferenceProfile.load(profile.save(tmp_path / "reference.safetensors"))
    owner: object = loaded.numeric["spend"].values
    while isinstance(owner, np.ndarray) and not isinstance(owner, np.memmap):
        owner = owner.base
    assert isinstance(owner, np.memmap)
    judge_window(loaded, Window(features={"spend": np.zeros(200)}), DriftSpec())
    assert "cells" not in vars(loaded.numeric["spend"].sample)  # cells of the reference are for large windows
