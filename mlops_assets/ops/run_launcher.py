"""Launches each Dagster run as a process of its own that outlives the daemon.

The process is recorded on the run (pid and birth time), so that run monitoring can tell a worker
that was killed from one that is busy; Dagster's default launcher leaves such a run STARTED for ever.
Workers run at low priority: training must not take the processor away from the endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psutil
from dagster import DagsterRun, Field
from dagster import _check as check
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from mlops_assets.ops.fork_server import ForkServer

PID_TAG = "mlops/worker_pid"
BIRTH_TAG = "mlops/worker_birth"


class ProcessRunLauncher(RunLauncher, ConfigurableClass):
    """One local process a run, found again by pid and birth time."""

    def __init__(self, niceness: int = 10, inst_data: ConfigurableClassData | None = None) -> None:
        self._niceness = niceness
        self._inst_data = inst_data
        self._workers = ForkServer()
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Field]:
        return {"niceness": Field(int, default_value=10, description="Priority of run workers, 0 to 19.")}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> ProcessRunLauncher:
        return cls(niceness=config_value["niceness"], inst_data=inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run's worker in a session of its own and record who it is."""
        run = context.dagster_run
        arguments = ExecuteRunArgs(
            job_origin=check.not_none(context.job_code_origin),
            run_id=run.run_id,
            instance_ref=self._instance.get_ref(),
            set_exit_code_on_failure=True,
        )
        command = arguments.get_command_args()  # `dagster api execute_run ...`
        pid = self._workers.fork(command[command.index("api") :], self._niceness)
        birth = psutil.Process(pid).create_time()
        self._instance.add_run_tags(run.run_id, {PID_TAG: str(pid), BIRTH_TAG: repr(birth)})
        self._instance.report_engine_event(f"Run worker started as process {pid}.", run, cls=self.__class__)

    def terminate(self, run_id: str) -> bool:
        """Ask the worker to stop; it marks the run as canceled itself."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        worker = self._worker(run)
        if worker is None:
            return False
        self._instance.report_run_canceling(run)
        worker.send_signal(2)  # SIGINT: Dagster's workers turn it into a clean cancellation
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """RUNNING while the recorded process lives; NOT_FOUND once it is gone."""
        if self._worker(run) is not None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND, f"run worker process {run.tags.get(PID_TAG, '(never recorded)')} is gone"
        )

    def _worker(self, run: DagsterRun) -> psutil.Process | None:
        if PID_TAG not in run.tags:
            return None
        try:
            process = psutil.Process(int(run.tags[PID_TAG]))
            same = abs(process.create_time() - float(run.tags[BIRTH_TAG])) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None
