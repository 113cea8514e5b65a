"""How many threads torch may use for a piece of work.

Beside a serving process the cores are contended, and torch's worker threads, which spin at every barrier,
then slow small operations down tenfold. Such work runs one thread per operation, several pieces side by side.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread_per_operation() -> Iterator[None]:
    """Run each torch operation within on one thread; the former setting comes back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """The processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
