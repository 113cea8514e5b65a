"""Imports that cost less: a library that another could use, and can do without, is kept from it.

Seconds at the start and a hundred megabytes in each process are at stake. Only for libraries whose import of the
other allows for its absence; whoever really needs it imports it later as ever.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
