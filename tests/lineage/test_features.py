"""Features, as Dagster runs them: customer events become what is trained on and what is served, for every model."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from typer.testing import CliRunner

from mlops_assets.cli import app
from mlops_assets.data.tables import write_table
from mlops_assets.lineage.loop import Loop
from mlops_assets.lineage.measures import read_features
from mlops_assets.spec import FEATURES
from mlops_assets.storage import write_atomic
from tests.data.factories import events
from tests.lineage.judged import snapshot
from tests.lineage.world import checks, definitions, metadata, run_days

pytestmark = pytest.mark.slow  # Feast
DAY = datetime(2026, 1, 6, tzinfo=UTC)


def test_what_overlapping_exports_repeat_is_told_and_counts_once(loop: Loop, instance: dg.DagsterInstance) -> None:
    store = loop.feature_store()
    store.apply()
    bought = events([("c", 1.0, 1, 10.0, 0, 0.0), ("c", 2.0, 1, 5.0, 0, 0.0), ("c", 3.0, 1, 7.0, 0, 0.0)])
    write_table(loop.settings.customer_events / "first.parquet", bought.head(2))
    write_table(loop.settings.customer_events / "second.parquet", bought)
    made = run_days(loop, instance, "refresh_features", DAY, DAY)
    assert metadata(made, loop, "customer_features")["repeated_in_another_file"] == 2
    assert store.online(["c"], as_of=DAY)[0].values["spend_90d"] == 22.0


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
    asked = pl.DataFrame({"customer_id": ["shop", "firm"]}).with_columns(event_timestamp=pl.lit(DAY))
    for model in (loop, other, loop):
        made = run_days(model, instance, "refresh_features", DAY, DAY)
        assert checks(made)["served_equals_offline"] == (True, "2 customers are served what the offline join says")
        assert store.offline_join(asked, ["spend_90d"])["spend_90d"].to_list() == [10.0, 900.0]
        served = store.online(["shop", "firm"], as_of=DAY)
        assert [features.values["spend_90d"] for features in served] == [10.0, 900.0]


def test_a_model_that_takes_fewer_features_has_those_joined_that_its_champion_asks_for(
    loop: Loop, instance: dg.DagsterInstance
) -> None:
    loop.feature_store().apply()
    fewer = loop.spec.features.model_copy(update={"defaults": {"orders_90d": 0.0}})
    loop = replace(loop, spec=loop.spec.model_copy(update={"features": fewer}))
    made = snapshot(loop, 100)
    told = {"snapshot_digest": made.digest}
    instance.report_runless_asset_event(dg.AssetMaterialization(loop.key("training_set"), metadata=told))
    retrain = definitions(loop).resolve_job_def(loop.name("retrain"))
    assert retrain.execute_in_process(instance=instance, asset_selection=[loop.key("training_features")]).success
    assert set(FEATURES) < set(read_features(loop.home, made.digest).columns)
