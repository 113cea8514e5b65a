"""Stands where the endpoint stands: a real HTTP server that answers for one rollout as the guard does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import ThreadingHTTPServer
from typing import Any

from mlops_assets.resources.registry import Registry
from mlops_assets.serving.exposition import exposition
from tests.http_server import QuietHandler, listening


@dataclass
class Rollout:
    """What the guard knows of the newest rollout, and what it does when asked to seal it."""

    registry: Registry
    model: str
    version: int | None = None
    phase: str = "waiting"
    reason: str = "no rollout yet"
    expected_seconds: float | None = None
    waits_since: datetime | None = None
    answer: str = "sealed"
    seals: list[int] = field(default_factory=list)
    approvals: list[dict[str, str] | None] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        decision = {"reason": self.reason, "expected_seconds_to_verdict": self.expected_seconds}
        waits_since = self.waits_since.isoformat() if self.waits_since else None
        return {
            "version": self.version,
            "phase": self.phase,
            "reason": self.reason,
            "waits_since": waits_since,
            "decision": decision,
        }

    def seal(self, version: int, approval: dict[str, str] | None) -> dict[str, str]:
        self.seals.append(version)
        self.approvals.append(approval)
        if self.answer == "sealed":
            self.registry.attach_evidence(self.model, version, "rollout", {"answer": self.answer})
            self.phase = "sealed"
        return {"answer": self.answer, "phase": self.phase}


@contextmanager
def served(rollout: Rollout) -> Iterator[int]:
    """Serve a rollout on a free port; yields the port."""

    class Guard(QuietHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self.say(exposition({}, {}, registry_ok=True).encode())
            else:
                self.say(json.dumps(rollout.describe()).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.say(json.dumps(rollout.seal(body["version"], body["approval"])).encode())

    with listening(ThreadingHTTPServer(("127.0.0.1", 0), Guard)) as server:
        yield server.server_port
