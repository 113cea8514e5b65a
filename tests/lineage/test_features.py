"""Features, as Dagster runs them: customer events become what is trained on and what is served, for every model."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from typer.testing import CliRunner

from mlops_assets.cli import app
from mlops_assets.lineage.loop import Loop
from mlops_assets.storage import write_atomic
from tests.data.factories import events
from tests.lineage.world import checks, definitions

pytestmark = pytest.mark.slow  # Feast


def refreshed(loop: Loop, instance: dg.DagsterInstance) -> dict[str, tuple[bool, str]]:
    """The checks of a run that refreshes the features of a model."""
    job = definitions(loop).resolve_job_def(loop.name("refresh_features"))
    return checks(job.execute_in_process(instance=instance))


def test_models_share_the_customer_events_whichever_refreshes_last(
    loop: Loop, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("m", "n"):
        write_atomic(tmp_path / "models" / name / "defs.yaml", f"type: x\nattributes: {{name: {name}}}\n".encode())
    monkeypatch.setenv("MLOPS_HOME", str(loop.settings.home))
    monkeypatch.setenv("MLOPS_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    for model, customer, amount in (("m", "shop", 10.0), ("n", "firm", 900.0)):
        file = tmp_path / f"{customer}.parquet"
        events([(customer, 1.0, 1, amount, 0, 0.0)]).write_parquet(file)
        said = CliRunner().invoke(app, ["ingest", "--customer-events", str(file), "--model", model])
        assert said.exit_code == 0, said.output

    store = loop.feature_store()
    store.apply()
    other = replace(loop, spec=loop.spec.model_copy(update={"name": "n"}))
    asked = pl.DataFrame({"customer_id": ["shop", "firm"]}).with_columns(
        event_timestamp=pl.lit(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=5))
    )
    for model in (loop, other, loop):
        assert refreshed(model, instance)["served_equals_offline"] == (
            True,
            "2 customers are served what the offline join says",
        )
        assert store.offline_join(asked, ["spend_90d"])["spend_90d"].to_list() == [10.0, 900.0]
        served = store.online(["shop", "firm"], as_of=asked["event_timestamp"][0])
        assert [features.values["spend_90d"] for features in served] == [10.0, 900.0]
