"""One declared model in a home of its own, and its jobs run in this process on an instance of its own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from mlops_assets.data.tables import write_table
from mlops_assets.lineage.loop import Loop, range_tags
from mlops_assets.lineage.model import build_defs
from mlops_assets.settings import Settings
from mlops_assets.spec import ModelSpec

MODEL = "m"


def loop_in(home: Path, **changes: Any) -> Loop:
    """A model called `m` whose state lies under `home`; `changes` replace parts of its spec."""
    return Loop(ModelSpec(name=MODEL, owners=("team:support",), **changes), Settings(home=home, _env_file=None))


def definitions(loop: Loop) -> dg.Definitions:
    return build_defs(loop.spec, loop.settings)


def put(loop: Loop, name: str, frame: pl.DataFrame) -> Path:
    """Put a table into the model's inbox of messages."""
    return write_table(loop.home.incoming / "messages" / name, frame)


def run_days(
    loop: Loop, instance: dg.DagsterInstance, job: str, first: datetime, last: datetime
) -> dg.ExecuteInProcessResult:
    """Run one of the model's jobs over the days `first` to `last`, as its sensor asks for it."""
    resolved = definitions(loop).resolve_job_def(loop.name(job))
    return resolved.execute_in_process(instance=instance, tags=range_tags(first, last), raise_on_error=False)


def retrain_run(loop: Loop, instance: dg.DagsterInstance, status: dg.DagsterRunStatus, tags: Mapping[str, str]) -> str:
    """A run of the job that retrains, as far as it came; returns its id."""
    job = definitions(loop).resolve_job_def(loop.name("retrain"))
    return instance.create_run_for_job(job, status=status, tags=tags).run_id


def checks(result: dg.ExecuteInProcessResult) -> dict[str, tuple[bool, str]]:
    """What each check of a run said: (passed, message) by name."""
    return {e.check_name: (e.passed, e.description or "") for e in result.get_asset_check_evaluations()}


def metadata(result: dg.ExecuteInProcessResult, loop: Loop, asset: str) -> dict[str, Any]:
    """Metadata of an asset's last materialization in a run, as plain values."""
    events = result.asset_materializations_for_node(_node(loop, asset))
    found = [event for event in events if event.asset_key == loop.key(asset)]
    return {name: value.value for name, value in found[-1].metadata.items()}


def _node(loop: Loop, asset: str) -> str:
    shared = {"validated_messages": "validate_messages", "quarantine": "validate_messages"}
    return loop.name(shared[asset]) if asset in shared else f"{loop.model}__{asset}"
