"""What passes through the feature store's door: its answers, and one error per failure that a caller can act on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta


class FeatureStoreDown(RuntimeError):
    """The store cannot answer now; who looks up online goes on with its stated defaults."""


class FeatureStoreNotApplied(RuntimeError):
    """The registry does not know the view: call `FeatureStoreDoor.apply` (or ``feast apply``) first."""


class UnknownFeature(ValueError):
    """A name that the view does not have; the message lists those it has."""


class ServiceConflict(ValueError):
    """A model version's feature service exists already, with other features; a version never changes."""


class BadFeatureRows(ValueError):
    """Rows that the view cannot take; the message says which column is missing or wrong."""


class JoinLostRows(RuntimeError):
    """The offline store answered with other rows than it was asked for."""


@dataclass(frozen=True)
class OnlineFeatures:
    """The answer for one customer. Not found: unknown, or last heard of longer ago than the view's time to live."""

    customer_id: str
    found: bool
    event_timestamp: datetime | None
    values: Mapping[str, float | None]


@dataclass(frozen=True)
class Removed:
    """What was held of one customer: rows of the offline file, values of the online store."""

    offline: int
    online: int


def judge(
    customer_id: str, event: datetime | None, values: Mapping[str, float | None], as_of: datetime, ttl: timedelta
) -> OnlineFeatures:
    """What is held of a customer as an answer: values past their time to live are not found."""
    found = event is not None and as_of - event <= ttl
    return OnlineFeatures(customer_id, found, event, values if found else dict.fromkeys(values))


@dataclass(frozen=True)
class Snapshot:
    """All that was served at one version of the online store, by customer: event time and values.

    `nothing` has no value for any feature.
    """

    version: Hashable
    ttl: timedelta
    nothing: Mapping[str, float | None]
    held: Mapping[str, tuple[datetime, Mapping[str, float | None]]]

    def online(self, customer_id: str, as_of: datetime) -> OnlineFeatures:
        """What `FeatureStoreDoor.online` would have answered for a customer."""
        event, values = self.held.get(customer_id, (None, self.nothing))
        return judge(customer_id, event, values, as_of, self.ttl)


@dataclass(frozen=True)
class Materialised:
    """What one materialisation did: customers known by `to`, rows written, and how many of those came late.

    `gone` customers were served and are no longer known.
    """

    since: datetime | None
    to: datetime
    customers: int
    written: int
    late: int
    gone: int
