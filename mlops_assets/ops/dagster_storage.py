"""Dagster's SQLite storage, with its connections kept.

Dagster's own makes an engine for every statement, compiles the statement anew and, whenever it was the only one
connected, has SQLite write the log back into the database: 25 to 35 ms of a processor an event on a slow machine, of
which a run has hundreds. With kept connections it is a third of that. Files, schema and durability are Dagster's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine

# Every run has a database of its own; those that were not asked for lately are closed.
_DATABASES = 32


@lru_cache(_DATABASES)
def _engine(url: str) -> Engine:
    """The one engine of a database in this process; it has as many connections as there are threads that use it."""
    return create_engine(url, max_overflow=-1, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})


class _OneDatabase:
    """A storage whose one database is at `_conn_string`."""

    _conn_string: str

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with _engine(self._conn_string).begin() as connection:
            yield connection


class RunStorage(_OneDatabase, SqliteRunStorage):
    """Runs and their tags."""


class ScheduleStorage(_OneDatabase, SqliteScheduleStorage):
    """Sensors, schedules and their ticks."""


class EventLogStorage(SqliteEventLogStorage):
    """The events of each run, and an index of those that tell of assets."""

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            engine = _engine(self.conn_string_for_shard(shard))
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    def has_table(self, table_name: str) -> bool:
        # is asked at every event of a partition, from within `_connect`
        with _engine(self.conn_string_for_shard(INDEX_SHARD_NAME)).connect() as connection:
            return connection.dialect.has_table(connection, table_name)


class KeptSqliteStorage(DagsterSqliteStorage):
    """All three under one folder, laid out as Dagster lays out its own: a home may change from one to the other."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super(DagsterSqliteStorage, self).__init__()  # its own would open the same databases
        history = Path(base_dir) / "history"
        self.base_dir = base_dir
        self._inst_data = inst_data
        self._run_storage = RunStorage.from_local(str(history))
        self._event_log_storage = EventLogStorage(str(history / "runs"))
        self._schedule_storage = ScheduleStorage.from_local(str(Path(base_dir) / "schedules"))

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> KeptSqliteStorage:
        return cls(inst_data=inst_data, **config_value)
