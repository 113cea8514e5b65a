"""What goes wrong for a while is told when it begins and when it is over."""

from __future__ import annotations

import pytest

from mlops_assets.serving.trouble import Trouble


def test_it_is_told_once_however_often_it_is_met_and_again_when_it_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    disk = Trouble("the disk")
    for _ in range(2):
        for _ in range(3):
            disk.met(OSError(28, "No space left on device", "/home/model"))
        for _ in range(3):
            disk.over()
    began = "the disk: [Errno 28] No space left on device: '/home/model'"
    assert [record.message for record in caplog.records] == [
        began,
        "it is over: the disk: No space left on device",
    ] * 2


def test_a_caller_learns_the_kind_of_error_and_nothing_of_what_it_says() -> None:
    registry = Trouble("the registry")
    registry.met(ValueError("postgresql://mlops:secret@db"))
    assert registry.why == "ValueError"
