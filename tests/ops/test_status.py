"""What `mlops status` says of each part, and when all is as it should be."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer
from itertools import cycle
from typing import Any

import psutil
import pytest

from mlops_assets.ops.status import platform_status
from mlops_assets.settings import Settings
from mlops_assets.storage import write_json
from tests.http_server import QuietHandler, listening


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


def test_parts_that_nobody_supervises_are_not_all_right(settings: Settings) -> None:
    assert part(settings, "supervisor")["detail"] == "not started: mlops up"
    record(settings, "dagster-daemon")
    assert part(settings, "supervisor") == {
        "name": "supervisor",
        "state": "dead",
        "detail": "nothing is started again: mlops down, then mlops up",
        "ok": False,
    }
    me = psutil.Process()
    write_json(settings.home / "run" / "platform.json", {"pid": me.pid, "birth": me.create_time(), "processes": {}})
    assert (part(settings, "supervisor")["state"], part(settings, "supervisor")["ok"]) == ("up", True)


WELL: dict[str, Any] = {
    "replica": "ingress-1",
    "models": {
        "tickets": {
            "stable": {"version": 3, "artefact_digest": "d"},
            "canary": None,
            "error": None,
            "feature_store": {"ok": True, "error": None, "copy_age_seconds": 1.0},
            "log": {"policy": "mandatory", "ok": True, "error": None, "unlogged": 0},
        }
    },
    "registry": {"ok": True, "checked_at": None, "error": None},
    "guard": {"ok": True, "error": None},
}


@contextmanager
def endpoint_saying(settings: Settings, *healths: dict[str, Any]) -> Iterator[None]:
    """An endpoint whose replicas answer in turn."""
    turn = cycle(healths)

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            self.say(json.dumps(next(turn)).encode())

    with listening(HTTPServer((settings.host, settings.serve_port), Handler)):
        yield


@pytest.mark.slow
def test_an_endpoint_that_is_well_is_all_right(settings: Settings) -> None:
    with endpoint_saying(settings, WELL):
        rows = [part(settings, name) for name in ("guard", "registry", "tickets")]
    assert [(row["state"], row["detail"], row["ok"]) for row in rows] == [
        ("up", "", True),
        ("up", "", True),
        ("serving", "stable 3", True),
    ]


@pytest.mark.parametrize("name", ["guard", "registry"])
def test_what_the_endpoint_leans_on_is_told_with_its_error(settings: Settings, name: str) -> None:
    with endpoint_saying(settings, {**WELL, name: {"ok": False, "error": "TimeoutError"}}):
        assert part(settings, name) == {"name": name, "state": "degraded", "detail": "TimeoutError", "ok": False}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "state", "detail"),
    [
        ({"stable": None}, "waiting", "no production version yet"),
        ({"error": "version 4 is refused"}, "degraded", "stable 3; version 4 is refused"),
        ({"feature_store": {"ok": False, "error": "locked"}}, "degraded", "stable 3; feature store: locked"),
        ({"log": {"ok": False, "error": "the log is full"}}, "degraded", "stable 3; the log is full"),
    ],
)
def test_a_model_that_is_degraded_is_told_with_each_error(
    settings: Settings, changes: dict[str, Any], state: str, detail: str
) -> None:
    health = {**WELL, "models": {"tickets": {**WELL["models"]["tickets"], **changes}}}
    with endpoint_saying(settings, health):
        assert part(settings, "tickets") == {"name": "tickets", "state": state, "detail": detail, "ok": False}


@pytest.mark.slow
def test_what_one_replica_of_two_has_is_told_whichever_answers_first(settings: Settings) -> None:
    full = {**WELL["models"]["tickets"], "log": {"ok": False, "error": "the log is full"}}
    ill = {**WELL, "replica": "ingress-2", "models": {"tickets": full}}
    for replicas in ((WELL, ill), (ill, WELL)):
        with endpoint_saying(settings, *replicas):
            row = part(settings, "tickets")
        assert (row["state"], row["ok"]) == ("degraded", False)
        assert row["detail"] == "stable 3; the log is full (1 of 2 replicas)"


@pytest.mark.slow
def test_replicas_with_faults_of_their_own_are_told_apart(settings: Settings) -> None:
    def ill(replica: str, error: str) -> dict[str, Any]:
        return {**WELL, "replica": replica, "models": {"tickets": {**WELL["models"]["tickets"], "error": error}}}

    with endpoint_saying(settings, ill("a", "a leak"), ill("b", "a fire"), ill("c", "a fire")):
        row = part(settings.model_copy(update={"ingress_replicas": 3}), "tickets")
    assert row["detail"] == "stable 3; a leak (1 of 3 replicas); stable 3; a fire (2 of 3 replicas)"
