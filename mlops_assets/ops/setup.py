"""Prepares a home: folders, Dagster's instance file and the schemas of every store.

Everything here is a no-op when repeated, so that `mlops up` can always call it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mlops_assets.declarations import find_specs
from mlops_assets.settings import Settings
from mlops_assets.storage import write_atomic

if TYPE_CHECKING:
    from dagster import DagsterInstance

# A worker that dies is noticed by run monitoring, its run ended and tried again; the queue and both
# daemons loop as often as they may, since their interval is the latency of the whole loop.
DAGSTER_YAML = """\
telemetry: {enabled: false}
nux: {enabled: false}
freshness: {enabled: true}
storage:
  custom:
    module: mlops_assets.ops.dagster_storage
    class: KeptSqliteStorage
    config: {base_dir: {env: DAGSTER_HOME}}
run_launcher:
  module: mlops_assets.ops.run_launcher
  class: ProcessRunLauncher
concurrency:
  runs: {max_concurrent_runs: 3}
  pools: {default_limit: 1, granularity: run}
run_monitoring:
  enabled: true
  start_timeout_seconds: 90
  poll_interval_seconds: 5
  max_runtime_seconds: 7200
run_retries: {enabled: true, max_retries: 2, retry_on_asset_or_op_failure: false}
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config: {dequeue_interval_seconds: 1}
"""

# One code server for webserver and daemon; without it each starts one of its own, and the daemon a new one a minute.
WORKSPACE_YAML = """\
load_from:
  - grpc_server: {{host: {host}, port: {port}, location_name: mlops_assets}}
"""


def prepare(settings: Settings) -> None:
    """Create what the platform needs under `settings.home`.

    Raises:
        SpecError: a model's YAML is broken; nothing was created.
    """
    specs = find_specs(settings.models_dir)
    for spec in specs:
        (settings.model_home(spec.name).incoming / "messages").mkdir(parents=True, exist_ok=True)
    settings.customer_events.mkdir(parents=True, exist_ok=True)
    (settings.home / "run").mkdir(parents=True, exist_ok=True)
    (settings.home / "logs").mkdir(parents=True, exist_ok=True)
    settings.admin_secret()
    _dagster(settings)
    from mlops_assets.resources.feast import FeatureStoreDoor
    from mlops_assets.resources.registry import prepare as prepare_registry

    prepare_registry(settings)
    FeatureStoreDoor(settings).apply()


def is_home(settings: Settings) -> bool:
    """Whether `settings.home` was prepared: its Dagster is set up as ours, which nobody else's is."""
    instance = settings.dagster_home / "dagster.yaml"
    return instance.is_file() and "mlops_assets.ops." in instance.read_text()


def dagster_instance(settings: Settings) -> DagsterInstance:
    """The Dagster of a prepared home. Processes that this one starts find it too."""
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    from dagster import DagsterInstance

    return DagsterInstance.get()


def _dagster(settings: Settings) -> None:
    write_atomic(settings.dagster_home / "dagster.yaml", DAGSTER_YAML.encode())
    workspace = WORKSPACE_YAML.format(host=settings.host, port=settings.code_port)
    write_atomic(settings.dagster_home / "workspace.yaml", workspace.encode())
    with dagster_instance(settings) as instance:
        instance.get_runs(limit=1)  # creates the schema now, not under several processes at once
