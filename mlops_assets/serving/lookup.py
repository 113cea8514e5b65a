"""Online features with a deadline: what the store says in time, or the stated defaults, flagged.

The store's client may be slow to import, slow to answer, or gone. None of that may reach a caller, so
it is asked in a thread of its own, and an answer that comes late is thrown away. A store that can tell
whether it changed is asked that alone, ten times a second, and its values come from memory.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from mlops_assets.serving.metrics import Lookup
from mlops_assets.settings import Settings

if TYPE_CHECKING:
    from mlops_assets.resources.feast_online import OnlineFeatureStore
    from mlops_assets.resources.feast_types import OnlineFeatures, Snapshot

log = logging.getLogger("mlops_assets.serving")

Values = Mapping[str, float | None]
Read = Callable[[str, datetime], Values | None]

# More look-ups than this in flight means that the store hangs: asking again would only queue up.
_MAX_IN_FLIGHT = 32
# A copy in memory answers for so long after the store was seen to hold the same.
FRESH_SECONDS = 0.25
_CHECK_SECONDS = 0.1
# A store that is written all the time is copied again for at most this share of the time.
_COPYING_SHARE = 0.05


@runtime_checkable
class Copies(Protocol):
    """A reader that can also hand over all that the store holds."""

    def copy(self) -> Read | None:
        """Reads from memory what the store holds now; None where there is no such copy. Cheap if nothing changed."""


@dataclass(frozen=True)
class Looked:
    """Features of one customer.

    Attributes:
        values: by name; empty when defaults have to stand in.
        source: "online", or "default".
        reason: why it is defaults.
        outcome: the same for metrics, where values that are too old are told from those that were never there.
    """

    values: dict[str, float | None] = field(default_factory=dict)
    source: Literal["online", "default"] = "default"
    reason: str | None = None
    outcome: Lookup = "default"


class TooOld(LookupError):
    """The store has values of the customer, and they are past their time to live."""


class FeatureLookup:
    """Asks `read(customer_id, as_of)` in a thread, for at most `deadline` seconds.

    Args:
        open_store: makes the reader; called once, in the thread, because its imports take seconds.
            The reader returns the values by name, or None for a customer that it does not know, and raises
            TooOld where its values are no longer good.
        deadline: seconds.
        reopen_after: seconds between attempts to open a store that could not be opened.
    """

    def __init__(self, open_store: Callable[[], Read], deadline: float, reopen_after: float = 2.0) -> None:
        self._open_store = open_store
        self._deadline = deadline
        self._reopen_after = reopen_after
        self._reopen_at = 0.0
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="features")
        self._copier = ThreadPoolExecutor(1, thread_name_prefix="features-copy")
        self._copies: Copies | None = None
        self._copying: Future[None] | None = None
        self._copy: Read | None = None
        self._copied_at = 0.0
        self._counting = threading.Lock()
        self._in_flight = 0
        self._read: Read | None = None
        self._not_open = "being opened"
        self.error: str | None = "the feature store is being opened"
        self._opening: Future[None] = self._threads.submit(self._open)

    async def __call__(self, customer_id: str | None, as_of: datetime) -> Looked:
        """The customer's features at `as_of`; never raises."""
        if customer_id is None:
            return Looked(reason="no customer_id was given")
        if self._read is None:
            self._reopen()
            return Looked(reason=f"feature store: {self._not_open}")
        if (copy := self._fresh_copy()) is not None:
            self.error = None
            return _recalled(copy, customer_id, as_of)
        if self._in_flight >= _MAX_IN_FLIGHT:
            return Looked(reason="feature store: too many look-ups hang")
        return await self._ask(self._read, customer_id, as_of)

    @property
    def copy_age(self) -> float | None:
        """Seconds since the copy in memory was last seen to be what the store holds; None without a copy."""
        return None if self._copy is None else time.monotonic() - self._copied_at

    async def _ask(self, read: Read, customer_id: str, as_of: datetime) -> Looked:
        with self._counting:
            self._in_flight += 1
        asked = self._threads.submit(read, customer_id, as_of)
        asked.add_done_callback(self._landed)
        try:
            values = await asyncio.wait_for(asyncio.wrap_future(asked), self._deadline)
        except TimeoutError:
            self.error = f"no answer within {self._deadline * 1000:g} ms"
            return Looked(reason=f"feature store: {self.error}")
        except TooOld:
            self.error = None
            return _STALE
        except Exception as error:  # noqa: BLE001 - any failure of the store means defaults, by contract
            return Looked(reason=f"feature store: {self._failed('read', error)}")
        self.error = None
        return _looked(values)

    def _fresh_copy(self) -> Read | None:
        """The copy, if it is fresh enough; a look at the store is on its way where it soon will not be."""
        if self._copies is None:
            return None
        age = time.monotonic() - self._copied_at
        if age > _CHECK_SECONDS and (self._copying is None or self._copying.done()):
            self._copying = self._copier.submit(self._renew, self._copies)
        return self._copy if age <= FRESH_SECONDS else None

    def _renew(self, read: Copies) -> None:
        looked_at = time.monotonic()
        try:
            self._copy = read.copy()
        except Exception:  # noqa: BLE001 - the next look-up asks the store itself, and says what is wrong with it
            self._copy = None
        self._copied_at = looked_at

    def _landed(self, _: Future[Values | None]) -> None:
        with self._counting:  # this runs in the look-up's thread
            self._in_flight -= 1

    def _reopen(self) -> None:
        if self._opening.done() and time.monotonic() >= self._reopen_at:
            self._opening = self._threads.submit(self._open)

    def _open(self) -> None:
        try:
            read = self._open_store()
            self._copies = read if isinstance(read, Copies) else None
            self._read = read
            self.error = None
        except Exception as error:  # noqa: BLE001 - the store may come up later; until then defaults
            self._reopen_at = time.monotonic() + self._reopen_after
            self._not_open = self._failed("opened", error)

    def _failed(self, what: str, error: Exception) -> str:
        """The kind of trouble, which is all that a caller learns; addresses and paths are for the log, once."""
        kind = type(error).__name__
        if self.error != kind:
            log.warning("the feature store cannot be %s: %s: %s", what, kind, error)
        self.error = kind
        return kind


_STALE = Looked(reason="the customer's values in the feature store are too old", outcome="stale")


def _looked(values: Values | None) -> Looked:
    if values is None:
        return Looked(reason="the customer is unknown to the feature store")
    return Looked(dict(values), "online", outcome="hit")


def _recalled(copy: Read, customer_id: str, as_of: datetime) -> Looked:
    try:
        return _looked(copy(customer_id, as_of))
    except TooOld:
        return _STALE


class FeastReader:
    """The feature store's online values: one customer's from the store, or everybody's from a copy."""

    def __init__(self, store: OnlineFeatureStore) -> None:
        self._store = store
        self._snapshot: Snapshot | None = None
        self._copy_at = 0.0

    def __call__(self, customer_id: str, as_of: datetime) -> Values | None:
        """Ask the store."""
        return _good(self._store.online([customer_id], as_of=as_of)[0])

    def copy(self) -> Read | None:
        """The store's values in memory; None while they change faster than one should copy, or are too many.

        Raises:
            FeatureStoreDown: the store cannot be read.
        """
        version = self._store.online_version()
        if self._snapshot is None or self._snapshot.version != version:
            started = time.monotonic()
            if started < self._copy_at:
                return None
            self._snapshot = self._store.snapshot()
            now = time.monotonic()
            self._copy_at = now + (now - started) / _COPYING_SHARE
        snapshot = self._snapshot
        return (lambda customer_id, as_of: _good(snapshot.online(customer_id, as_of))) if snapshot else None


def _good(found: OnlineFeatures) -> Values | None:
    if not found.found and found.event_timestamp is not None:
        raise TooOld
    return found.values if found.found else None


def open_feast(settings: Settings) -> Read:
    """A reader of the feature store's online values; the first call imports Feast, which takes seconds.

    Raises:
        FeatureStoreDown: the online store cannot be read (yet).
    """
    from mlops_assets.resources.feast_online import OnlineFeatureStore

    read = FeastReader(OnlineFeatureStore(settings))
    read("", datetime.now(UTC))  # warm, and proof that the store answers
    return read
