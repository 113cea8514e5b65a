"""Imports that cost less, as seconds at the start and a hundred megabytes in each process are at stake.

A library that another could use, and can do without, is kept from it: only for libraries whose import of the other
allows for its absence; whoever really needs it imports it later as ever. And the garbage collector looks less often.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Python's default is 700. What an import makes is there to stay, and looking at it again and again is a quarter of the
# time that a large library takes. Ray Serve sets the same for its proxies.
_NEW_OBJECTS_PER_COLLECTION = 10_000


def collect_less_often() -> None:
    """Let this process, and what it forks, make 10,000 objects before the next look for garbage."""
    gc.set_threshold(_NEW_OBJECTS_PER_COLLECTION)


@contextmanager
def without(name: str) -> Iterator[None]:
    """Let imports of `name` fail meanwhile, unless it is there already.

    >>> with without("tabnanny"):
    ...     import tabnanny
    Traceback (most recent call last):
    ModuleNotFoundError: import of tabnanny halted; None in sys.modules
    >>> import tabnanny
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # the import system's own sign for "there is no such module"
    try:
        yield
    finally:
        del sys.modules[name]
