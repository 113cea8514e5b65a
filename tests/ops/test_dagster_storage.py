"""Dagster's storage as the platform keeps it: Dagster's own files, read and written over connections that stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import Engine, event

from mlops_assets.ops.dagster_storage import EventLogStorage
from mlops_assets.ops.setup import DAGSTER_YAML

Home = Callable[[Path], AbstractContextManager[dg.DagsterInstance]]

DAYS = dg.DailyPartitionsDefinition("2026-01-01")
TEN_DAYS = {
    "dagster/asset_partition_range_start": "2026-03-01",
    "dagster/asset_partition_range_end": "2026-03-10",
}


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def answers() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"rows": 7})


def judge(instance: dg.DagsterInstance) -> str:
    """A run that materialises ten days; returns its id."""
    job = dg.Definitions(assets=[answers], jobs=[dg.define_asset_job("judge", [answers])]).resolve_job_def("judge")
    return job.execute_in_process(instance=instance, tags=TEN_DAYS).run_id


def seen(instance: dg.DagsterInstance, run: str) -> tuple[list[str | None], set[str]]:
    """The events of a run, and the days that were ever materialised."""
    kinds = [record.dagster_event_type for record in instance.all_logs(run)]
    return [kind and kind.value for kind in kinds], instance.get_materialized_partitions(answers.key)


@contextmanager
def kept(home: Path) -> Iterator[dg.DagsterInstance]:
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text(DAGSTER_YAML)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DAGSTER_HOME", str(home))
        instance = dg.DagsterInstance.get()
    with instance:
        assert isinstance(instance.event_log_storage, EventLogStorage)
        yield instance


@contextmanager
def dagsters_own(home: Path) -> Iterator[dg.DagsterInstance]:
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert not isinstance(instance.event_log_storage, EventLogStorage)
        yield instance


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(kept, dagsters_own), (dagsters_own, kept)])
def test_a_home_may_change_from_dagsters_storage_to_ours_and_back(before: Home, after: Home, tmp_path: Path) -> None:
    with before(tmp_path / "home") as instance:
        run = judge(instance)
        told = seen(instance, run)
    assert len(told[1]) == 10
    with after(tmp_path / "home") as instance:
        assert seen(instance, run) == told
        again = judge(instance)
        assert {found.run_id for found in instance.get_runs()} == {run, again}


@pytest.mark.slow
def test_a_run_connects_to_each_database_a_few_times_not_at_every_event(tmp_path: Path) -> None:
    connections = []

    def count(*connection: object) -> None:
        connections.append(connection)

    with kept(tmp_path / "home") as instance:
        judge(instance)
        event.listen(Engine, "connect", count)
        try:
            run = judge(instance)
        finally:
            event.remove(Engine, "connect", count)
        assert len(seen(instance, run)[0]) > 25
    assert len(connections) <= 3


@pytest.mark.slow
def test_threads_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    days = [f"2026-03-{day:02}" for day in range(1, 31)]
    with kept(tmp_path / "home") as instance, ThreadPoolExecutor(4) as pool:
        told = [dg.AssetMaterialization(answers.key, partition=day) for day in days]
        list(pool.map(instance.report_runless_asset_event, told))
        assert instance.get_materialized_partitions(answers.key) == set(days)
