"""Each run is a process of its own, which is known again, and known to be gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.launcher.base import LaunchRunContext, WorkerStatus

from mlops_assets.ops import fork_server
from mlops_assets.ops.run_launcher import BIRTH_TAG, PID_TAG, ProcessRunLauncher
from mlops_assets.ops.setup import DAGSTER_YAML
from tests.ops import jobs
from tests.serving.world import wait_until

pytestmark = pytest.mark.slow  # a worker's libraries are imported for each test

LAUNCH = """
import sys
import dagster as dg
from tests.ops import jobs
from tests.ops.test_run_launcher import launch
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    print(launch(instance, jobs.waiting), flush=True)
    sys.stdin.read()
"""
CODE = """
from pathlib import Path
import dagster as dg

@dg.op
def tell() -> None:
    Path({path!r}).write_text({word!r})

@dg.job(executor_def=dg.in_process_executor)
def job() -> None:
    tell()
"""


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """The instance that `mlops up` sets up; what a test left is killed."""
    home = tmp_path_factory.mktemp("dagster")
    (home / "dagster.yaml").write_text(DAGSTER_YAML)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance
        for server in fork_servers():
            server.kill()
        for run in instance.get_runs():
            if health(instance, run) is WorkerStatus.RUNNING:
                os.kill(int(run.tags[PID_TAG]), signal.SIGKILL)
    monkeypatch.undo()


def fork_servers() -> list[psutil.Process]:
    """The processes that run workers are forked from, which are this one's children."""
    living = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in living if "mlops_assets.ops.fork_server" in child.cmdline()]


def launch(instance: dg.DagsterInstance, job: dg.JobDefinition | ReconstructableJob) -> str:
    found = job if isinstance(job, ReconstructableJob) else dg.reconstructable(job)
    run = instance.create_run_for_job(found.get_definition(), job_code_origin=found.get_python_origin())
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


def test_when_the_daemon_is_killed_what_it_forks_from_goes_too_and_the_worker_goes_on(
    instance: dg.DagsterInstance,
) -> None:
    daemon = subprocess.Popen([sys.executable, "-c", LAUNCH, instance.root_directory], stdout=subprocess.PIPE)
    assert daemon.stdout is not None
    run_id = daemon.stdout.readline().decode().strip()
    wait_until(lambda: status(instance, run_id) is dg.DagsterRunStatus.STARTED, 90)
    [server] = psutil.Process(daemon.pid).children()
    daemon.kill()
    daemon.wait()
    psutil.wait_procs([server], timeout=10)
    assert not server.is_running()
    run = run_of(instance, run_id)
    assert health(instance, run) is WorkerStatus.RUNNING
    os.kill(int(run.tags[PID_TAG]), signal.SIGKILL)


def test_a_daemon_that_is_killed_before_it_knows_of_a_worker_leaves_none(instance: dg.DagsterInstance) -> None:
    daemon = subprocess.Popen([sys.executable, "-c", LAUNCH, instance.root_directory], stdout=subprocess.DEVNULL)
    [server] = wait_until(lambda: psutil.Process(daemon.pid).children())
    daemon.kill()  # while the libraries are imported
    daemon.wait()
    psutil.wait_procs([server], timeout=60)
    assert not server.is_running()
    assert [run for run in instance.get_runs(limit=1) if run.status is dg.DagsterRunStatus.STARTED] == []


def test_what_hangs_is_replaced(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    launched(instance)
    [server] = fork_servers()
    server.suspend()
    with monkeypatch.context() as patched:
        patched.setattr(fork_server, "FORKED_SECONDS", 0.5)
        with pytest.raises(TimeoutError):
            launch(instance, jobs.quick)
    assert not server.is_running()
    launched(instance)


def test_a_worker_is_forked_after_what_it_is_forked_from_was_killed(instance: dg.DagsterInstance) -> None:
    launched(instance)
    [server] = fork_servers()
    server.kill()
    server.wait()
    launched(instance)


def test_a_worker_reads_the_code_as_it_is_when_the_run_starts(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    code, seen = tmp_path / "code.py", tmp_path / "seen"
    for word in ("first", "second"):
        code.write_text(CODE.format(path=str(seen), word=word))
        run_id = launch(instance, ReconstructableJob.for_file(str(code), "job"))
        wait_until(lambda run_id=run_id: status(instance, run_id) is dg.DagsterRunStatus.SUCCESS, 90)
        assert seen.read_text() == word


def test_a_worker_sees_how_its_own_children_end(instance: dg.DagsterInstance) -> None:
    run_id = launch(instance, jobs.parent)
    wait_until(lambda: run_of(instance, run_id).is_finished, 90)
    assert status(instance, run_id) is dg.DagsterRunStatus.SUCCESS


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
