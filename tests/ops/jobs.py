"""A job that a run worker can load by name: it lasts until it is stopped."""

from __future__ import annotations

import time

import dagster as dg


@dg.op
def wait() -> None:
    time.sleep(300)


@dg.job
def waiting() -> None:
    wait()


@dg.job
def quick() -> None:
    """Done at once."""
