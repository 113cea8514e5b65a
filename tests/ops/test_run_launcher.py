"""Each run is a process of its own, which is known again, and known to be gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.launcher.base import LaunchRunContext, WorkerStatus

from mlops_assets.ops.run_launcher import BIRTH_TAG, PID_TAG, ProcessRunLauncher
from mlops_assets.ops.setup import DAGSTER_YAML
from tests.ops import jobs
from tests.serving.world import wait_until

pytestmark = pytest.mark.slow  # each run worker imports Dagster


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """The instance that `mlops up` sets up; run workers that a test left are killed."""
    (tmp_path / "dagster.yaml").write_text(DAGSTER_YAML)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance
        for worker in psutil.Process().children():
            if worker.status() != psutil.STATUS_ZOMBIE and "execute_run" in worker.cmdline():
                worker.kill()


def launch(instance: dg.DagsterInstance, job: dg.JobDefinition) -> str:
    origin = dg.reconstructable(job).get_python_origin()
    run = instance.create_run_for_job(job, job_code_origin=origin)
    instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
    return run.run_id


def launched(instance: dg.DagsterInstance) -> dg.DagsterRun:
    """A run whose worker is at work."""
    run_id = launch(instance, jobs.waiting)
    wait_until(lambda: status(instance, run_id) is dg.DagsterRunStatus.STARTED, 90)
    return run_of(instance, run_id)


def run_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    return run_of(instance, run_id).status


def health(instance: dg.DagsterInstance, run: dg.DagsterRun) -> WorkerStatus:
    return instance.run_launcher.check_run_worker_health(run).status


def test_the_instance_of_the_platform_launches_with_it(instance: dg.DagsterInstance) -> None:
    assert isinstance(instance.run_launcher, ProcessRunLauncher)
    assert instance.run_monitoring_enabled
    assert instance.run_retries_max_retries == 2


def test_a_run_ends_well_and_its_worker_is_gone(instance: dg.DagsterInstance) -> None:
    run_id = launch(instance, jobs.quick)
    wait_until(lambda: status(instance, run_id) is dg.DagsterRunStatus.SUCCESS, 90)
    run = run_of(instance, run_id)
    wait_until(lambda: health(instance, run) is WorkerStatus.NOT_FOUND)


def test_a_worker_has_low_priority_and_outlives_the_daemon(instance: dg.DagsterInstance) -> None:
    worker = psutil.Process(int(launched(instance).tags[PID_TAG]))
    assert worker.nice() >= 10
    assert os.getsid(worker.pid) == worker.pid


def test_a_worker_that_is_killed_is_seen_to_be_gone(instance: dg.DagsterInstance) -> None:
    run = launched(instance)
    assert health(instance, run) is WorkerStatus.RUNNING
    os.kill(int(run.tags[PID_TAG]), signal.SIGKILL)
    wait_until(lambda: health(instance, run) is WorkerStatus.NOT_FOUND)
    found = instance.run_launcher.check_run_worker_health(run)
    assert found.msg == f"run worker process {run.tags[PID_TAG]} is gone"


def test_after_a_restart_of_the_daemon_a_worker_is_found_again(instance: dg.DagsterInstance) -> None:
    run = launched(instance)
    with dg.DagsterInstance.from_config(instance.root_directory) as restarted:
        assert health(restarted, run) is WorkerStatus.RUNNING


def test_another_process_that_took_the_pid_is_not_the_worker(instance: dg.DagsterInstance) -> None:
    tags = {PID_TAG: str(os.getpid()), BIRTH_TAG: "1.0"}
    run = instance.create_run_for_job(jobs.quick, tags=tags)
    assert health(instance, run) is WorkerStatus.NOT_FOUND
    never = instance.create_run_for_job(jobs.quick)
    assert "never recorded" in str(instance.run_launcher.check_run_worker_health(never).msg)


def test_a_run_that_is_stopped_ends_as_canceled(instance: dg.DagsterInstance) -> None:
    run = launched(instance)
    assert instance.run_launcher.terminate(run.run_id)
    wait_until(lambda: status(instance, run.run_id) is dg.DagsterRunStatus.CANCELED, 60)
    assert not instance.run_launcher.terminate(run.run_id)
