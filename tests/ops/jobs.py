"""Jobs that a run worker can load by name."""

from __future__ import annotations

import subprocess
import time

import dagster as dg


@dg.op
def wait() -> None:
    time.sleep(300)


@dg.job(executor_def=dg.in_process_executor)
def waiting() -> None:
    """Lasts until it is stopped."""
    wait()


@dg.op
def fail_in_a_child() -> None:
    assert subprocess.run(["false"], check=False).returncode == 1


@dg.job(executor_def=dg.in_process_executor)
def parent() -> None:
    """Ends well if it saw its child end badly."""
    fail_in_a_child()


@dg.job(executor_def=dg.in_process_executor)
def quick() -> None:
    """Done at once."""
