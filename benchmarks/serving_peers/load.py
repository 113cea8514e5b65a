"""Load by wrk: keep-alive POSTs over so many connections, each as soon as the last was answered."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

PATIENCE = 30  # seconds until wrk gives a request up

SCRIPT = """\
local requests, turn = {}, 0
function init(arguments)
  for body in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, {["Content-Type"] = "application/json"}, body)
  end
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('\\n{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "failed": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


class WrkMissing(RuntimeError):
    """There is no wrk on this machine."""


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw; latencies in milliseconds, `failed` counts everything but a good answer."""

    requests: int
    per_second: float
    p50: float
    p99: float
    failed: int


def find_wrk() -> str:
    """The path of wrk.

    Raises:
        WrkMissing: with the way to get it.
    """
    path = shutil.which("wrk")
    if path is None:
        raise WrkMissing(
            "the load generator wrk is missing: `apt-get install wrk` (Debian, Ubuntu), `brew install wrk` (macOS), "
            "or build it from github.com/wg/wrk and put it on the PATH"
        )
    return path


def load(url: str, bodies: Sequence[str], connections: int, seconds: float) -> Load:
    """Send the bodies in turn, over and over, for so many seconds."""
    with TemporaryDirectory(prefix="bench-wrk-") as folder:
        script, lines = Path(folder) / "load.lua", Path(folder) / "bodies.ndjson"
        script.write_text(SCRIPT)
        lines.write_text("\n".join(bodies) + "\n")
        command = [find_wrk(), "-t1", f"-c{connections}", f"-d{seconds:g}s", f"--timeout={PATIENCE}s"]
        done = subprocess.run(
            [*command, f"--script={script}", url, "--", str(lines)], check=True, capture_output=True, text=True
        )
    seen = json.loads(done.stdout.splitlines()[-1])
    per_second = seen["requests"] / (seen["microseconds"] / 1e6)
    return Load(seen["requests"], per_second, seen["p50"] / 1000, seen["p99"] / 1000, seen["failed"])
