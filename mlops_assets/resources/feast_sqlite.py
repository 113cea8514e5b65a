"""Feast's SQLite online store with the two properties that serving needs.

An older event never replaces a newer one, decided inside the write itself, unless that is asked for; and a read answers
or fails within a stated time: a missing file is an error, not a new empty store. Loaded by Feast alone, which finds it
by the name in ``feature_store.yaml``; it knows nothing of this platform. Times are kept as microseconds since the
epoch, UTC.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from feast import FeatureView
from feast.infra.key_encoding_utils import deserialize_entity_key, serialize_entity_key
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig

Written = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
Read = tuple[datetime | None, dict[str, Value] | None]
Held = tuple[EntityKey, datetime, dict[str, Value]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_KEYS_PER_QUERY = 5_000  # below the limit of variables in one SQLite statement

_UPSERT = """
INSERT INTO "{table}" (entity_key, feature_name, value, event_ts, created_ts) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (entity_key, feature_name) DO UPDATE
SET value = excluded.value, event_ts = excluded.event_ts, created_ts = excluded.created_ts
WHERE (excluded.event_ts, coalesce(excluded.created_ts, 0))
   >= ("{table}".event_ts, coalesce("{table}".created_ts, 0))
"""
_DELETE = 'DELETE FROM "{table}" WHERE entity_key = ?'


class GuardedSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """Settings of `GuardedSqliteOnlineStore` in ``feature_store.yaml``."""

    type: Literal["mlops_assets.resources.feast_sqlite.GuardedSqliteOnlineStore"] = (
        "mlops_assets.resources.feast_sqlite.GuardedSqliteOnlineStore"
    )
    read_timeout_ms: float = 20.0
    """A read that waits longer than this for a lock fails."""
    write_timeout_ms: float = 10_000.0
    """The same for a write."""


class GuardedSqliteOnlineStore(SqliteOnlineStore):
    """SQLite online store, safe against writes out of order; raises `sqlite3.Error` where it cannot answer."""

    def __init__(self) -> None:
        super().__init__()
        self._reader = _Connection()
        self._watcher = _Connection()  # reads whole tables, in another thread than the reader's
        self._writer = _Connection()

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: Sequence[Written],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows in one transaction; a row whose (event, created) time is older than what is held changes nothing.

        Raises:
            sqlite3.Error: the store is locked for too long, damaged, or the view was never applied.
        """
        rows = [
            (key, name, value.SerializeToString(), _to_int(event), None if created is None else _to_int(created))
            for entity, values, event, created in data
            for key in [_key(config, entity)]
            for name, value in values.items()
        ]
        connection = self._get_conn(config)
        with connection:
            connection.executemany(_UPSERT.format(table=_table(config, table)), rows)
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: Sequence[EntityKey],
        requested_features: Sequence[str] | None = None,
    ) -> list[Read]:
        """Event time (UTC) and values per entity, in the order asked; ``(None, None)`` where nothing is held.

        Raises:
            sqlite3.Error: the file is missing, locked for longer than `read_timeout_ms`, or damaged.
        """
        wanted = None if requested_features is None else set(requested_features)
        keys = [_key(config, entity) for entity in entity_keys]
        held: dict[bytes, tuple[datetime, dict[str, Value]]] = {}
        for key, name, raw, event in self._rows(config, table, keys):
            if wanted is not None and name not in wanted:
                continue
            _, values = held.setdefault(key, (_EPOCH + event * _MICROSECOND, {}))
            values[name] = Value.FromString(raw)
        return [held.get(key, (None, None)) for key in keys]

    @contextmanager
    def in_place_of(self, config: RepoConfig, table: FeatureView, entities: Sequence[EntityKey]) -> Iterator[None]:
        """What one batch writes inside replaces all that is held of `entities`, however new; readers see one step.

        Raises:
            sqlite3.Error: the store is locked for too long, or damaged; nothing was removed.
        """
        connection = self._get_conn(config)
        with connection:
            keys = [(_key(config, entity),) for entity in entities]
            connection.executemany(_DELETE.format(table=_table(config, table)), keys)
            yield

    def forget(self, config: RepoConfig, table: FeatureView, entity: EntityKey) -> int:
        """Remove everything held of one entity, also from the file's free pages and its log; returns the values.

        Raises:
            sqlite3.Error: the file is locked for too long, or damaged.
        """
        connection = self._get_conn(config)
        connection.execute("PRAGMA secure_delete = ON")
        with connection:
            query = _DELETE.format(table=_table(config, table))
            removed = connection.execute(query, (_key(config, entity),)).rowcount
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError("a reader keeps the write-ahead log, in which older values still stand")
        return int(removed)

    def version(self, config: RepoConfig) -> Hashable:
        """Differs from an earlier answer of this object once anybody else wrote in between, or swapped the file.

        Raises:
            sqlite3.Error: the file is missing, locked or damaged.
        """
        counter = self._watching(config).execute("PRAGMA data_version").fetchone()
        return self._watcher.file, counter

    def read_all(self, config: RepoConfig, table: FeatureView) -> Iterator[Held]:
        """Entity, event time (UTC) and values of everything that is held.

        Raises:
            sqlite3.Error: the file is missing, locked or damaged.
        """
        rows = self._watching(config).execute(
            f'SELECT entity_key, feature_name, value, event_ts FROM "{_table(config, table)}" ORDER BY entity_key'
        )
        for key, group in groupby(rows, key=itemgetter(0)):
            of_one = list(group)
            values = {name: Value.FromString(raw) for _, name, raw, _ in of_one}
            yield _entity(config, key), _EPOCH + of_one[0][3] * _MICROSECOND, values

    def _watching(self, config: RepoConfig) -> sqlite3.Connection:
        return self._open_to_read(self._watcher, config)

    def _open_to_read(self, connection: _Connection, config: RepoConfig) -> sqlite3.Connection:
        path = Path(self._get_db_path(config))
        return connection.open(path, "?mode=ro", config.online_store.read_timeout_ms)

    def _rows(self, config: RepoConfig, table: FeatureView, keys: list[bytes]) -> list[tuple[bytes, str, bytes, int]]:
        connection = self._open_to_read(self._reader, config)
        rows: list[tuple[bytes, str, bytes, int]] = []
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            part = keys[start : start + _KEYS_PER_QUERY]
            rows += connection.execute(
                f'SELECT entity_key, feature_name, value, event_ts FROM "{_table(config, table)}" '
                f"WHERE entity_key IN ({','.join('?' * len(part))})",
                part,
            )
        return rows

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        """The connection that writes; Feast's own `update` and `teardown` use it too."""
        path = Path(self._get_db_path(config))
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        connection = self._writer.open(path, "", config.online_store.write_timeout_ms)
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            connection.execute("PRAGMA journal_mode = WAL")  # a writer then never keeps a reader waiting
        return connection


class _Connection:
    """One open connection, replaced when the file behind the path is another one than it was."""

    def __init__(self) -> None:
        self._open: sqlite3.Connection | None = None
        self.file: tuple[int, int] | None = None

    def open(self, path: Path, options: str, timeout_ms: float) -> sqlite3.Connection:
        try:
            status = os.stat(path)
        except FileNotFoundError as error:
            raise sqlite3.OperationalError(f"{path} does not exist") from error
        file = (status.st_dev, status.st_ino)
        if self._open is None or self.file != file:
            if self._open is not None:
                self._open.close()
            uri = path.resolve().as_uri() + options
            self._open = sqlite3.connect(uri, uri=True, timeout=timeout_ms / 1000, check_same_thread=False)
            self.file = file
        return self._open


def _key(config: RepoConfig, entity: EntityKey) -> bytes:
    return bytes(serialize_entity_key(entity, entity_key_serialization_version=config.entity_key_serialization_version))


def _entity(config: RepoConfig, key: bytes) -> EntityKey:
    return deserialize_entity_key(key, entity_key_serialization_version=config.entity_key_serialization_version)


def _table(config: RepoConfig, view: FeatureView) -> str:
    name = compute_table_id(config.project, view, config.registry.enable_online_feature_view_versioning)
    return str(name).replace('"', '""')


def _to_int(time: datetime) -> int:
    """Microseconds since the epoch; Feast hands over naive times in UTC."""
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND
