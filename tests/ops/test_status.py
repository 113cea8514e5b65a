"""What `mlops status` says of each part, and when all is as it should be."""

from __future__ import annotations

import os
from typing import Any

from mlops_assets.ops.status import platform_status
from mlops_assets.settings import Settings
from mlops_assets.storage import write_json


def part(settings: Settings, name: str) -> dict[str, Any]:
    """One row of the status."""
    (found,) = [row for row in platform_status(settings)["parts"] if row["name"] == name]
    return found


def record(settings: Settings, name: str, **changes: Any) -> None:
    """Write what the supervisor would of a part."""
    known = {"pid": os.getpid(), "restarts": 0, "given_up": False, **changes}
    write_json(settings.home / "run" / "platform.json", {"pid": os.getpid(), "birth": 0.0, "processes": {name: known}})


def test_a_process_is_up_or_given_up_or_was_never_started(settings: Settings) -> None:
    assert part(settings, "dagster-daemon")["detail"] == "not started: mlops up"
    record(settings, "dagster-daemon")
    assert (part(settings, "dagster-daemon")["state"], part(settings, "dagster-daemon")["ok"]) == ("up", True)
    record(settings, "dagster-daemon", restarts=4, given_up=True)
    assert part(settings, "dagster-daemon") == {
        "name": "dagster-daemon",
        "state": "given up",
        "detail": f"process {os.getpid()}, restarted 4 times; tried again after pauses; "
        f"{settings.home / 'logs' / 'dagster-daemon.log'} says why",
        "ok": False,
    }
