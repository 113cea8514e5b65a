"""Reading the feature store online: a customer's features, everybody's at once, and whether they changed.

All that an endpoint's replica needs, and no more: neither the registry, nor a lock, nor what joins offline. Feast
itself, seconds of import, is loaded inside the methods that need it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from mlops_assets import clock
from mlops_assets.resources.feast_repo import Repository, import_feast, load_repository, open_store
from mlops_assets.resources.feast_types import FeatureStoreDown, OnlineFeatures, Snapshot, judge
from mlops_assets.settings import Settings

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

VIEW = "customer_profile"
ENTITY = "customer_id"
MAX_SNAPSHOT = 100_000  # customers, some 60 MB


class OnlineFeatureStore:
    """What is served of the view ``customer_profile``; one per process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._home = settings.home.resolve()
        self._repo = settings.feature_repo.resolve()
        self._folder = self._home / "feast"

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The view's features, in its own order."""
        return tuple(field.name for field in self._view.features)

    def online(self, customer_ids: Sequence[str], as_of: datetime | None = None) -> list[OnlineFeatures]:
        """What is served for each customer, in the order asked; `as_of` (default: now) decides the time to live.

        Raises:
            FeatureStoreDown: within the read time-out of ``feature_store.yaml``.
        """
        moment = clock.now(self._settings) if as_of is None else as_of
        read = zip(customer_ids, self._read_online(customer_ids), strict=True)
        return [judge(customer, event, values, moment, self._view.ttl) for customer, (event, values) in read]

    def online_version(self) -> Hashable | None:
        """Differs from an earlier answer once anything was written online in between; None if the store cannot tell.

        Raises:
            FeatureStoreDown: the online store cannot be read.
        """
        store = self._store.provider.online_store
        with self._told_as_down():
            return store.version(self._store.config) if hasattr(store, "version") else None

    def snapshot(self) -> Snapshot | None:
        """Everything that is served; None if the store cannot tell, or holds more than one should keep in memory.

        May run in another thread than `online`.

        Raises:
            FeatureStoreDown: the online store cannot be read.
        """
        version = self.online_version()  # first: what is written meanwhile makes it differ from the next one
        if version is None:
            return None
        rows = list(islice(self._read_everybody(), MAX_SNAPSHOT + 1))
        if len(rows) > MAX_SNAPSHOT:
            return None
        held = {customer: (event, values) for customer, event, values in rows}
        return Snapshot(version, self._view.ttl, self._nothing, held)

    @cached_property
    def _repository(self) -> Repository:
        return load_repository(self._repo, self._home)

    @cached_property
    def _view(self) -> FeatureView:
        return self._repository.view(VIEW)

    @cached_property
    def _store(self) -> FeatureStore:
        return open_store(self._repo, self._repository.configuration)

    @cached_property
    def _nothing(self) -> Mapping[str, float | None]:
        return dict.fromkeys(self.feature_names)

    def _read_online(self, customer_ids: Sequence[str]) -> list[tuple[datetime | None, dict[str, float | None]]]:
        keys = [entity_key(customer) for customer in customer_ids]
        with self._told_as_down():
            rows = self._store.provider.online_store.online_read(self._store.config, self._view, keys)
        return [(event, {**self._nothing, **_numbers(values or {})}) for event, values in rows]

    def _read_everybody(self) -> Iterator[tuple[str, datetime, dict[str, float | None]]]:
        """Customer, event time and values of all that is served, of a store that can list them."""
        store = self._store.provider.online_store
        with self._told_as_down():
            for key, event, values in store.read_all(self._store.config, self._view):
                yield key.entity_values[0].string_val, event, {**self._nothing, **_numbers(values)}

    @contextmanager
    def _told_as_down(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every store has its own errors, and none of them may reach a prediction
            raise FeatureStoreDown(f"online store of {VIEW} ({self._folder}): {error}") from error


def entity_key(customer_id: str) -> Any:
    """The key under which Feast keeps a customer."""
    import_feast()
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    return EntityKey(join_keys=[ENTITY], entity_values=[Value(string_val=customer_id)])


def _numbers(values: Mapping[str, Any]) -> dict[str, float | None]:
    """Feast's values as floats; null and NaN are both None."""
    numbers = {}
    for name, value in values.items():
        kind = value.WhichOneof("val")
        number = None if kind in (None, "null_val") else float(getattr(value, kind))
        numbers[name] = None if number is None or math.isnan(number) else number
    return numbers
