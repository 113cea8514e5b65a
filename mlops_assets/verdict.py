"""The four outcomes that every check, drift test and gate in the platform can have.

Shared by all packages so that "it could not be computed" is never mistaken for "it is fine".
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Verdict(StrEnum):
    """The outcome of a check. Only ``PASS`` lets anything go ahead."""

    PASS = "pass"
    FAIL = "fail"
    INSUFFICIENT_DATA = "insufficient_data"
    ERROR = "error"

    @property
    def ok(self) -> bool:
        """True for ``PASS`` alone: a check that could not say is not a pass."""
        return self is Verdict.PASS


def joint(verdicts: Iterable[Verdict]) -> Verdict:
    """Of several looks for the same thing: what one has shown stands, whatever the others could not compute.

    >>> joint([Verdict.FAIL, Verdict.ERROR]).value, joint([Verdict.PASS, Verdict.ERROR]).value
    ('fail', 'error')
    """
    present = set(verdicts)
    return Verdict.FAIL if Verdict.FAIL in present else worst(present)


_WORST_FIRST = (Verdict.ERROR, Verdict.FAIL, Verdict.INSUFFICIENT_DATA, Verdict.PASS)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The least favourable of several verdicts; of none at all, ``INSUFFICIENT_DATA``.

    >>> worst([Verdict.PASS, Verdict.INSUFFICIENT_DATA]).value
    'insufficient_data'
    >>> worst([]).value
    'insufficient_data'
    """
    present = set(verdicts)
    return next((v for v in _WORST_FIRST if v in present), Verdict.INSUFFICIENT_DATA)
