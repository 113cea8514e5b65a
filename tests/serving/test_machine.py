"""The machine is sampled into a file that keeps an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlops_assets.monitoring.machine import read_samples
from mlops_assets.serving.machine import MachineSampler
from tests.serving.full_disk import no_room_in


def on_the_path(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """An `nvidia-smi` that says this."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_samples_are_shares_and_go_on_after_a_restart(tmp_path: Path) -> None:
    first = MachineSampler(tmp_path).sample()
    second = MachineSampler(tmp_path).sample()
    assert read_samples(tmp_path) == [first, second]
    assert 0 <= first.cpu <= 1


def test_no_more_than_an_hour_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlops_assets.serving.machine._AN_HOUR", 3)
    sampler = MachineSampler(tmp_path)
    taken = [sampler.sample() for _ in range(5)]
    assert read_samples(tmp_path) == taken[2:]


def test_what_is_sampled_while_the_disk_is_full_is_written_when_it_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sampler = MachineSampler(tmp_path / "home")
    taken = [sampler.sample()]
    with no_room_in(tmp_path / "home"):
        taken += [sampler.sample() for _ in range(3)]
    taken.append(sampler.sample())
    assert read_samples(tmp_path / "home") == taken
    assert caplog.text.count("the load of the machine cannot be written") == 2  # that it is, and that it is over


@pytest.mark.parametrize(("script", "gpu"), [("echo 37; echo 99", 0.99), ("echo '[N/A]'", None), ("exit 9", None)])
def test_the_busiest_gpu_counts_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, gpu: float | None
) -> None:
    on_the_path(tmp_path, monkeypatch, script)
    assert MachineSampler(tmp_path).sample().gpu == gpu
