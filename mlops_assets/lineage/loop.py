"""What every stage of one model's graph shares: names, days, doors and the "one step at a time" rule.

It knows Dagster and the settings; it takes no decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as AssetJob
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES

from mlops_assets import clock
from mlops_assets.settings import ModelHome, Settings
from mlops_assets.spec import ModelSpec
from mlops_assets.verdict import Verdict

if TYPE_CHECKING:
    from mlops_assets.resources.endpoint import Endpoint
    from mlops_assets.resources.feast import FeatureStoreDoor
    from mlops_assets.resources.registry import Registry

__all__ = ["AssetJob", "Loop", "check_result", "last_closed_day", "markdown_table", "partition_days", "range_tags"]

STEP_TAG = "mlops/step"
MAX_ATTEMPTS = 3
# Of so many last materializations of an asset those of a run's own attempts are sought.
_MATERIALIZATIONS = 100


@dataclass(frozen=True)
class Loop:
    """One declared model and the platform it runs on."""

    spec: ModelSpec
    settings: Settings

    @property
    def model(self) -> str:
        return self.spec.name

    @property
    def home(self) -> ModelHome:
        return self.settings.model_home(self.model)

    @cached_property
    def days(self) -> dg.DailyPartitionsDefinition:
        """Days in event time, UTC."""
        return dg.DailyPartitionsDefinition(start_date=self.spec.data.start.isoformat(), timezone="UTC")

    def now(self) -> datetime:
        return clock.now(self.settings)

    def key(self, asset: str) -> dg.AssetKey:
        return dg.AssetKey([self.model, asset])

    def name(self, what: str) -> str:
        """A job, sensor or schedule name that is unique over models."""
        return f"{self.model}_{what}"

    def describe(
        self,
        asset: str,
        stage: str,
        description: str,
        *,
        kinds: Sequence[str] = (),
        deps: Sequence[str | dg.AssetDep] = (),
        **more: Any,
    ) -> dict[str, Any]:
        """Arguments of an asset or its spec: the house's key, group, owners, kinds and upstream assets."""
        return {
            "key": self.key(asset),
            "group_name": f"{self.model}_{stage}",
            "description": description,
            "kinds": set(kinds) or {"python"},
            "owners": list(self.spec.owners),
            "deps": [self.key(dep) if isinstance(dep, str) else dep for dep in deps],
            **more,
        }

    def all_days(self, asset: str) -> dg.AssetDep:
        """An upstream asset of which every day is read."""
        return dg.AssetDep(self.key(asset), partition_mapping=dg.AllPartitionMapping())

    def registry(self) -> Registry:
        from mlops_assets.resources.registry import Registry

        return Registry(self.settings)

    def endpoint(self) -> Endpoint:
        from mlops_assets.resources.endpoint import Endpoint

        return Endpoint(self.settings)

    def feature_store(self) -> FeatureStoreDoor:
        from mlops_assets.resources.feast import FeatureStoreDoor

        return FeatureStoreDoor(self.settings)

    def latest(self, instance: dg.DagsterInstance, asset: str) -> dict[str, Any] | None:
        """Metadata values of an asset's latest materialization; None before the first."""
        event = instance.get_latest_materialization_event(self.key(asset))
        if event is None or event.asset_materialization is None:
            return None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}

    def made(self, context: dg.AssetExecutionContext, asset: str) -> dict[str, Any]:
        """Metadata values of an asset as this run or an earlier attempt of it made it; else those of `latest`.

        Another run may have made it anew since, beside this one or while this one was dead.
        """
        attempts = {run.run_id for run in (context.instance.get_run_group(context.run.run_id) or ((), ()))[1]}
        for record in context.instance.fetch_materializations(self.key(asset), limit=_MATERIALIZATIONS).records:
            if record.run_id in attempts and record.asset_materialization is not None:
                return {name: value.value for name, value in record.asset_materialization.metadata.items()}
        return self.latest(context.instance, asset) or {}

    def require(self, context: dg.AssetExecutionContext, asset: str, field: str) -> Any:
        """One field of what `made` finds of an asset; a clear failure when there is none."""
        found = self.made(context, asset)
        if field not in found:
            raise dg.Failure(f"{self.key(asset).to_user_string()} has no `{field}` yet: materialize it first")
        return found[field]

    def in_flight(self, instance: dg.DagsterInstance, job: str) -> dg.SkipReason | None:
        """Why a job has to wait: a run of it that has not ended. What piles up meanwhile is done in one go."""
        runs = instance.get_runs(dg.RunsFilter(job_name=self.name(job), statuses=NOT_FINISHED_STATUSES), limit=1)
        return dg.SkipReason(f"{job}: run {runs[0].run_id[:8]} is in flight") if runs else None

    def step(
        self,
        instance: dg.DagsterInstance,
        step: str,
        *,
        tags: Mapping[str, str] | None = None,
        **request: Any,
    ) -> dg.RunRequest | dg.SkipReason:
        """Ask for a run of `step` unless one is in flight, has done it, or it failed `MAX_ATTEMPTS` times.

        Level-triggered: what was done is read from the runs themselves, so a crash between asking and
        running loses nothing, and a new attempt has a run key of its own.
        """
        label = f"{self.model}:{step}"
        runs = instance.get_runs(dg.RunsFilter(tags={STEP_TAG: label}), limit=50)
        busy = next((run for run in runs if run.status not in FINISHED_STATUSES), None)
        if busy is not None:
            return dg.SkipReason(f"{step}: run {busy.run_id[:8]} is in flight")
        done = next((run for run in runs if run.status == dg.DagsterRunStatus.SUCCESS), None)
        if done is not None:
            return dg.SkipReason(f"{step}: done by run {done.run_id[:8]}")
        if len(runs) >= MAX_ATTEMPTS:
            return dg.SkipReason(f"{step}: failed {len(runs)} times; mend the cause, then launch it by hand")
        return dg.RunRequest(run_key=f"{label}:{len(runs)}", tags={STEP_TAG: label, **(tags or {})}, **request)


def range_tags(first: datetime, last: datetime) -> dict[str, str]:
    """Tags that make one run cover the days `first` to `last`, both included."""
    return {
        "dagster/asset_partition_range_start": first.date().isoformat(),
        "dagster/asset_partition_range_end": last.date().isoformat(),
    }


def partition_days(context: dg.AssetExecutionContext) -> list[datetime]:
    """The days of a run, as their first moments in UTC."""
    return [datetime.fromisoformat(key).replace(tzinfo=UTC) for key in context.partition_keys]


def last_closed_day(now: datetime) -> datetime:
    """The latest day that is over at `now`.

    >>> last_closed_day(datetime(2026, 5, 2, 0, 0, tzinfo=UTC)).date().isoformat()
    '2026-05-01'
    """
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> dg.MetadataValue:
    """A table as the UI shows it; None is an empty cell.

    >>> print(markdown_table(["claim", "value"], [["f1", 0.9], ["latency", None]]).value)
    | claim | value |
    | --- | --- |
    | f1 | 0.9 |
    | latency |  |
    """
    lines = (columns, ["---"] * len(columns), *rows)
    cells = (" | ".join("" if cell is None else str(cell) for cell in line) for line in lines)
    return dg.MetadataValue.md("\n".join(f"| {line} |" for line in cells))


def check_result(
    name: str,
    verdict: Verdict,
    message: str,
    *,
    asset: dg.AssetKey | None = None,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    metadata: Mapping[str, Any] | None = None,
) -> dg.AssetCheckResult:
    """A verdict as Dagster shows it: only PASS passes; the other states keep their names.

    `asset` is needed where one step makes several assets whose checks share a name.
    """
    return dg.AssetCheckResult(
        check_name=name,
        asset_key=asset,
        passed=verdict.ok,
        severity=severity,
        description=message,
        metadata={"verdict": verdict.value, **(metadata or {})},
    )
