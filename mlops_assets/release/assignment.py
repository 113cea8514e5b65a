"""Which arm a request belongs to: a hash of its customer, so that a customer stays in one arm.

Pure and stateless: any process that knows the salt and the weight gives the same answer. It does not
know whether a canary is running; the caller passes weight 0 when there is none.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

_BUCKETS = 2**64


def position(entity: str, salt: str) -> float:
    """Where `entity` falls in [0, 1) under `salt`: uniform over entities, independent between salts."""
    digest = hashlib.blake2b(entity.encode(), digest_size=8, key=_key(salt)).digest()
    return int.from_bytes(digest, "big") / _BUCKETS


@lru_cache(maxsize=64)
def _key(salt: str) -> bytes:
    return hashlib.sha256(salt.encode()).digest()


def group_of(entity: str, salt: str, groups: int) -> int:
    """Which of so many groups `entity` belongs to, 0..groups-1: the same everywhere, independent of its arm.

    >>> group_of("customer-7", "rollout-1", 32) == group_of("customer-7", "rollout-1", 32) < 32
    True
    """
    return int(position(entity, f"{salt}/group") * groups)


def in_canary(entity: str, salt: str, weight: float) -> bool:
    """Whether `entity` is served by the canary.

    Sticky (same entity, salt and weight: same answer) and monotone in `weight`: raising the weight moves
    customers into the canary only, never out of it. A new salt for every rollout draws new customers.

    Parameters
    ----------
    entity : the customer's id, or the request's own id where there is no customer.
    salt : the rollout's salt.
    weight : share of entities in the canary, 0..1.

    Examples
    --------
    >>> in_canary("customer-7", "rollout-1", 0.0), in_canary("customer-7", "rollout-1", 1.0)
    (False, True)
    """
    return position(entity, salt) < weight
