"""The door to the feature store: point-in-time joins, materialisation and the skew check, beside the online look-ups.

It knows the view ``customer_profile`` and the files around it; reading online is `feast_online`'s. What the features
mean is `mlops_assets.data`'s business, which defaults stand in for a missing value is the caller's. Feast itself,
seven seconds of import, is loaded inside the methods that need it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from mlops_assets import clock
from mlops_assets.data.tables import UnreadableFile, read_table
from mlops_assets.resources.feast_online import ENTITY, VIEW, OnlineFeatureStore, entity_key
from mlops_assets.resources.feast_repo import Applied, apply_repository, import_feast, load_repository
from mlops_assets.resources.feast_skew import SkewReport, compare
from mlops_assets.resources.feast_types import (
    BadFeatureRows,
    FeatureStoreDown,
    FeatureStoreNotApplied,
    JoinLostRows,
    Materialised,
    Removed,
    ServiceConflict,
    UnknownFeature,
)
from mlops_assets.storage import locked, read_json, write_atomic, write_json

_TIME = pl.Datetime("us", "UTC")
_KEY = (ENTITY, "event_timestamp", "created_timestamp")


class FeatureStoreDoor(OnlineFeatureStore):
    """Feast behind the platform's own words; one per process.

    Everything that writes takes turns over a lock file in the home, because concurrent pushes to SQLite fail now
    and then.

    >>> import tempfile
    >>> from datetime import UTC
    >>> from mlops_assets.settings import Settings
    >>> door = FeatureStoreDoor(Settings(home=Path(tempfile.mkdtemp())))
    >>> _ = door.apply()
    >>> at = datetime(2026, 3, 1, tzinfo=UTC)
    >>> row = {"customer_id": "c1", "event_timestamp": at, "created_timestamp": at}
    >>> door.push(pl.DataFrame([row | dict.fromkeys(door.feature_names, 2.0)]))
    1
    >>> door.online(["c1"], as_of=at)[0].values["orders_90d"]
    2.0
    >>> asked = pl.DataFrame([{"message_id": "m1", "customer_id": "c1", "event_timestamp": at}])
    >>> door.offline_join(asked, ["orders_90d"])["orders_90d"].to_list()
    [2.0]
    """

    @property
    def offline_path(self) -> Path:
        """The parquet file of the view: customers whenever something became known of them, with two timestamps."""
        return self._folder / "customer_profile.parquet"

    @property
    def services_path(self) -> Path:
        return self._folder / "services.json"

    def apply(self) -> Applied:
        """Make the registry equal to ``feature_repo/``; idempotent, deletes what is gone, works on an empty home."""
        with self._writing():
            return self._apply()

    def register_service(self, model: str, version: int, feature_names: Sequence[str]) -> str:
        """Declare the features of one model version, durably; returns the service's name.

        Raises:
            UnknownFeature: the view has no such feature.
            ServiceConflict: this version was registered with other features.
        """
        self._check_names(feature_names)
        name = f"{model}_v{version}"
        entry = {"model": model, "version": version, "view": VIEW, "features": list(feature_names)}
        with self._writing():
            declared = read_json(self.services_path) if self.services_path.exists() else {}
            if declared.get(name, entry) != entry:
                raise ServiceConflict(
                    f"{name} is declared in {self.services_path} with features {declared[name]['features']}, "
                    f"not {list(feature_names)}; register a new version"
                )
            if name not in declared:
                write_json(self.services_path, {**declared, name: entry})
            self._apply()
        return name

    def replace_offline(self, rows: pl.DataFrame) -> int:
        """Replace the offline file in one step by `rows` (customer_id, both timestamps, every feature).

        Raises:
            BadFeatureRows: a column is missing or cannot be cast.
        """
        with self._writing():
            return self._write_offline(self._conform(rows))

    def push(self, rows: pl.DataFrame) -> int:
        """Take fresh rows between two batches: into the offline file, then online; returns the rows taken.

        Without `created_timestamp` the rows count as known from now on. A row older than the one held online is
        kept offline and changes nothing online. Pushing the same rows again changes nothing.

        Raises:
            BadFeatureRows: a column is missing or cannot be cast.
            FeatureStoreDown: the online store cannot be written; the rows are safe offline, and `materialize` or
                the same push again brings them online.
        """
        if "created_timestamp" not in rows.columns:
            rows = rows.with_columns(created_timestamp=pl.lit(clock.now(self._settings)).cast(_TIME))
        fresh = self._conform(rows)
        with self._writing():
            held = self.offline_rows()
            self._write_offline(pl.concat([held, fresh]).unique(subset=list(_KEY), keep="last", maintain_order=True))
            self._write_online(_latest(fresh))
        return fresh.height

    def materialize(self, to: datetime) -> Materialised:
        """Bring the online store to what was known at `to`, writing only what differs.

        Level-triggered: it compares the latest row of each customer known at `to` with what is served, so a late
        row, a correction, a row that was withdrawn or missed by a crash and (after `apply`) a lost online file are
        all picked up. Feast's own incremental run looks at event times after the last run alone and would miss each
        of these. What is served from a later event, or from an offline row known later, stays.

        A store other than our SQLite can neither list nor remove customers: there a withdrawn row stays where the
        store refuses an older event, or where it was a customer's last. The skew check finds the former alone.

        Raises:
            FeatureStoreDown: the online store cannot be read or written.
            FeatureStoreNotApplied: before the first `apply`.
        """
        with self._writing():
            since = self.materialised_until()
            offline = self.offline_rows().with_columns(pl.col(*self.feature_names).fill_nan(None))
            by_then = pl.max_horizontal(*_KEY[1:]) <= to
            known, later = _latest(offline.filter(by_then)), offline.filter(~by_then)
            served = self._served(known[ENTITY].to_list())
            wrong = served.filter(pl.col("event_timestamp") <= to)
            for rows in (known, later):
                wrong = wrong.join(rows, on=served.columns, how="anti", nulls_equal=True)
            due = known.join(served.join(wrong, on=ENTITY, how="anti"), on=ENTITY, how="anti")
            self._write_online(due, instead_of=wrong[ENTITY].to_list())
            if since is None or to > since:
                self._store.registry.apply_materialization(self._view, self._store.project, since or to, to)
        late = 0 if since is None else due.filter(pl.col("event_timestamp") <= since).height
        gone = wrong.join(known, on=ENTITY, how="anti").height
        return Materialised(since=since, to=to, customers=known.height, written=due.height, late=late, gone=gone)

    def forget(self, customer_id: str) -> Removed:
        """Remove all rows of a customer, offline and online; repeated, it finds nothing.

        Raises:
            FeatureStoreDown: the offline file cannot be read; or the online store cannot be written, or is of a kind
                that cannot forget, and the rows are gone offline.
        """
        with self._writing():
            held = self.offline_rows()
            left = held.filter(pl.col(ENTITY) != customer_id)
            if left.height < held.height:
                self._write_offline(left)
            store = self._store.provider.online_store
            with self._told_as_down():
                online = store.forget(self._store.config, self._view, entity_key(customer_id))
        return Removed(held.height - left.height, online)

    def materialised_until(self) -> datetime | None:
        """The latest time that `materialize` reached, as the registry remembers it.

        Raises:
            FeatureStoreNotApplied: before the first `apply`.
        """
        import_feast()
        from feast.errors import FeatureViewNotFoundException

        try:
            view = self._store.registry.get_feature_view(VIEW, self._store.project, allow_cache=False)
        except FeatureViewNotFoundException as error:
            raise FeatureStoreNotApplied(f"{VIEW} is not in the registry of {self._folder}: apply first") from error
        ends: list[datetime] = [end for _, end in view.materialization_intervals]
        return max(ends, default=None)

    def offline_rows(self) -> pl.DataFrame:
        """Every row of the offline store: customer, event and known time, and the features.

        Raises:
            FeatureStoreDown: the file is damaged, or of another version of the view.
        """
        if not self.offline_path.exists():
            return pl.DataFrame(schema=self._schema)
        try:
            return self._conform(read_table(self.offline_path))
        except (UnreadableFile, BadFeatureRows) as error:
            raise FeatureStoreDown(
                f"offline rows in {self.offline_path}: {error}; materialize customer_features, which writes them anew"
            ) from error

    def offline_join(self, entity_df: pl.DataFrame, features: Sequence[str] | None = None) -> pl.DataFrame:
        """The rows of `entity_df`, in their order, with the features as they could be known at each event time.

        A value counts only if both its event and its known time lie at or before the row's `event_timestamp`.
        Null where nothing was known then, or only values past their time to live.

        Raises:
            UnknownFeature, BadFeatureRows (no zone in `event_timestamp`), FeatureStoreNotApplied.
            JoinLostRows: the store dropped or doubled rows.
        """
        names = list(self.feature_names if features is None else features)
        self._check_names(names)
        if not isinstance(dtype := entity_df.schema["event_timestamp"], pl.Datetime) or dtype.time_zone is None:
            raise BadFeatureRows(f"event_timestamp must be a datetime with a zone, not {dtype}")
        moments = entity_df.select(ENTITY, at=pl.col("event_timestamp").dt.convert_time_zone("UTC").cast(_TIME))
        values = self._known_at(moments.drop_nulls().unique(), names)
        joined = moments.join(values, on=[ENTITY, "at"], how="left", maintain_order="left")
        if joined.height != entity_df.height:
            raise JoinLostRows(f"asked for {entity_df.height} rows and got {joined.height}")
        return entity_df.with_columns(joined[name] for name in names)

    def sample_customers(self, size: int, seed: int) -> list[str]:
        """Up to `size` customers that either side holds, drawn without replacement; the same for the same seed."""
        customers = pl.concat([self.offline_rows()[ENTITY], self._served([])[ENTITY]]).unique().sort()
        return customers.sample(min(size, len(customers)), seed=seed).to_list()

    def check_skew(self, sample: Sequence[str], as_of: datetime | None = None) -> SkewReport:
        """Replay what is served for `sample` against the offline join at `as_of` (default: now).

        Run it after `materialize`: rows that became known since then are stale online, and found.

        Raises:
            FeatureStoreDown, FeatureStoreNotApplied.
        """
        moment = clock.now(self._settings) if as_of is None else as_of
        served = self.online(sample, as_of=moment)
        asked = pl.DataFrame({ENTITY: list(sample)}, schema={ENTITY: pl.String})
        offline = self.offline_join(asked.with_columns(event_timestamp=pl.lit(moment).cast(_TIME)))
        return compare(moment, self.feature_names, served, offline.to_dicts())

    def _apply(self) -> Applied:
        repository = load_repository(self._repo, self._home)  # afresh: services.json may have grown
        write_atomic(self._folder / "feature_store.yaml", repository.configuration.encode())
        return apply_repository(self._store, repository)

    def _writing(self) -> AbstractContextManager[None]:
        return locked(self._folder / ".writer.lock")

    # online

    def _write_online(self, rows: pl.DataFrame, instead_of: Sequence[str] = ()) -> None:
        """Write rows that are newer than what is held; of the customers `instead_of`, also those that are not."""
        store, keys = self._store.provider.online_store, [entity_key(customer) for customer in instead_of]
        removing = hasattr(store, "in_place_of")
        try:
            with store.in_place_of(self._store.config, self._view, keys) if removing else nullcontext():
                if not rows.is_empty():
                    self._store.provider.ingest_df(self._view, rows.to_pandas())
        except Exception as error:
            raise FeatureStoreDown(f"online store of {VIEW} ({self._folder}): {error}; apply it first?") from error

    def _served(self, customers: Sequence[str]) -> pl.DataFrame:
        """What is held online: of everybody, or where the store cannot list them, of `customers`."""
        if hasattr(self._store.provider.online_store, "read_all"):
            held = list(self._read_everybody())
        else:
            read = zip(customers, self._read_online(customers), strict=True)
            held = [(customer, event, values) for customer, (event, values) in read if event is not None]
        return pl.DataFrame(
            [{ENTITY: customer, "event_timestamp": event, **values} for customer, event, values in held],
            schema={name: dtype for name, dtype in self._schema.items() if name != "created_timestamp"},
        )

    # offline

    def _known_at(self, moments: pl.DataFrame, names: list[str]) -> pl.DataFrame:
        """Feast's point-in-time join for distinct (customer_id, at); one row each, features as float."""
        if moments.is_empty() or not names:
            return moments.with_columns(pl.lit(None, dtype=pl.Float64).alias(name) for name in names)
        import_feast()
        from feast.errors import FeatureViewNotFoundException

        self._store.refresh_registry()  # another process may have applied since
        try:
            job = self._store.get_historical_features(
                entity_df=moments.rename({"at": "event_timestamp"}).to_pandas(),
                features=[f"{VIEW}:{name}" for name in names],
                filter_by_created_timestamp=True,  # Feast's default leaks values that were not yet known
            )
        except FeatureViewNotFoundException as error:
            raise FeatureStoreNotApplied(f"{VIEW} is not in the registry of {self._folder}: apply first") from error
        answer = pl.from_arrow(job.to_arrow())
        if not isinstance(answer, pl.DataFrame) or answer.height != moments.height:
            raise JoinLostRows(f"asked the offline store for {moments.height} rows and got {len(answer)}")
        return answer.select(
            ENTITY,
            pl.col("event_timestamp").cast(_TIME).alias("at"),
            *(pl.col(name).cast(pl.Float64) for name in names),
        )

    def _write_offline(self, rows: pl.DataFrame) -> int:
        buffer = io.BytesIO()
        rows.sort("event_timestamp", ENTITY, "created_timestamp").write_parquet(buffer)
        write_atomic(self.offline_path, buffer.getvalue())
        return rows.height

    @cached_property
    def _schema(self) -> dict[str, Any]:
        keys = {ENTITY: pl.String, "event_timestamp": _TIME, "created_timestamp": _TIME}
        return keys | dict.fromkeys(self.feature_names, pl.Float64)

    def _conform(self, rows: pl.DataFrame) -> pl.DataFrame:
        missing = [name for name in self._schema if name not in rows.columns]
        if missing:
            raise BadFeatureRows(f"columns missing: {', '.join(missing)}; the view needs {', '.join(self._schema)}")
        naive = [name for name in _KEY[1:] if getattr(rows.schema[name], "time_zone", None) is None]
        if naive:
            raise BadFeatureRows(f"{', '.join(naive)}: must be a datetime with a zone")
        try:
            conformed = rows.select(pl.col(name).cast(dtype) for name, dtype in self._schema.items())
        except pl.exceptions.InvalidOperationError as error:
            raise BadFeatureRows(str(error)) from error
        if empty := [name for name in _KEY if conformed[name].null_count()]:
            raise BadFeatureRows(f"{', '.join(empty)}: must not be null")
        return conformed

    def _check_names(self, names: Sequence[str]) -> None:
        unknown = sorted(set(names) - set(self.feature_names))
        if unknown:
            raise UnknownFeature(f"{VIEW} has no {', '.join(unknown)}; it has {', '.join(self.feature_names)}")


def _latest(rows: pl.DataFrame) -> pl.DataFrame:
    """The last event of each customer; of one event told twice, what was created last."""
    return rows.sort("event_timestamp", "created_timestamp").unique(subset=ENTITY, keep="last", maintain_order=True)
