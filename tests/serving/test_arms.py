"""The stable arm: one version answers, and the one before it stays warm for as long as going back may be asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlops_assets.serving.arms import LoadedVersion, StableArm
from mlops_assets.serving.batcher import Overloaded
from mlops_assets.serving.routing import VersionRef
from mlops_assets.spec import ModelSpec
from tests.serving.factories import LABELS, MODEL, write_artefact

pytestmark = pytest.mark.anyio


def exported(home: Path, version: int) -> VersionRef:
    """A version that gives its own label to every message."""
    folder = home / str(version)
    return VersionRef(version, str(folder), write_artefact(folder, LABELS[version]))


def serving(arm: StableArm, ref: VersionRef) -> LoadedVersion:
    """The version in memory once the arm follows `ref`."""
    arm.follow(ref)
    assert arm.error is None
    assert arm.current is not None
    assert arm.current.ref == ref
    return arm.current


async def answer(version: LoadedVersion) -> str:
    probabilities = await version.batcher.submit("where is my parcel?", version.vector({}))
    return LABELS[probabilities.argmax()]


async def test_going_back_to_the_version_before_loads_nothing_and_is_answered_at_once(tmp_path: Path) -> None:
    arm = StableArm(ModelSpec(name=MODEL))
    first, second = (exported(tmp_path, version) for version in (1, 2))
    before, after = serving(arm, first), serving(arm, second)
    for ref in (first, second):
        shutil.rmtree(ref.artefact)  # from here on, what is not in memory cannot be had
    for ref, held in ((first, before), (second, after), (first, before)):
        assert serving(arm, ref) is held
        assert await answer(held) == LABELS[ref.version]


async def test_a_third_version_lets_go_of_the_first(tmp_path: Path) -> None:
    arm = StableArm(ModelSpec(name=MODEL))
    held = [serving(arm, exported(tmp_path, version)) for version in (1, 2, 3)]
    assert [await answer(version) for version in held[1:]] == [LABELS[2], LABELS[3]]
    with pytest.raises(Overloaded):
        await answer(held[0])


async def test_a_registry_that_names_no_version_takes_nothing_out_of_service_and_is_told_of(tmp_path: Path) -> None:
    arm, first = StableArm(ModelSpec(name=MODEL)), exported(tmp_path, 1)
    arm.follow(None)
    assert (arm.current, arm.error) == (None, None), "nothing was there that could serve on"
    held = serving(arm, first)
    arm.follow(None)
    assert arm.current is held
    assert await answer(held) == LABELS[1]
    assert arm.error == "no version has the alias production; version 1 serves on"
    assert arm.refused is None
    assert serving(arm, first) is held
