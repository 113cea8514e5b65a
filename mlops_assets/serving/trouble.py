"""Trouble that lasts: told in the log when it begins and when it is over, and not each time that it is met.

What the trouble is and what is done about it is for whoever meets it to say.
"""

from __future__ import annotations

import logging

log = logging.getLogger("mlops_assets.serving")


class Trouble:
    """One thing that may go wrong for a while; safe to use from several threads.

    Attributes:
        why: the kind of error that was met last, which is all that a caller may learn; None: all is well.

    >>> full = Trouble("the disk")
    >>> full.met(OSError(28, "No space left on device", "/somewhere"))
    >>> full.why
    'No space left on device'
    >>> full.over()
    >>> full.why is None
    True
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self.why: str | None = None

    def met(self, error: Exception) -> None:
        """It went wrong (again)."""
        if self.why is None:
            log.error("%s: %s", self._what, error)
        self.why = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__

    def over(self) -> None:
        """It went well."""
        if self.why is not None:
            log.warning("it is over: %s: %s", self._what, self.why)
        self.why = None
