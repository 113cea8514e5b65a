"""Tokens that the endpoint asks for: made at random, kept as hashes, compared in constant time.

One round of SHA-256 is enough for 256 random bits, which nobody can guess; a token that a person thought up
is not worth its hash. Who holds which token is the settings' matter.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection

_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def new_token() -> str:
    """A token of 256 random bits."""
    return secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    """What may be written down of a token.

    >>> hash_of("open sesame")[:19]
    'sha256:41ef4bb0b236'
    """
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


def is_hash(text: str) -> bool:
    """Whether this is such a hash, and not a token."""
    return _HASH.fullmatch(text) is not None


def matches(token: str, hashes: Collection[str]) -> bool:
    """Whether a token is one of those; takes as long whichever it is, and if it is none."""
    given = hash_of(token)
    return sum(hmac.compare_digest(given, known) for known in hashes) > 0
