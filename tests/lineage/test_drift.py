"""Drift, as Dagster runs it: a judged day comes with the page that shows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from mlops_assets.drift.observed import REFERENCE, observe
from mlops_assets.drift.profile import build_profile
from mlops_assets.lineage.loop import Loop
from mlops_assets.monitoring.windows import read_window
from mlops_assets.training.artefact import Predictor
from tests.lineage.world import run_days
from tests.monitoring.test_predictions import log, prediction
from tests.resources.foreign import log_pyfunc, record
from tests.serving.factories import DEFAULTS, write_artefact

DAY = datetime(2026, 3, 1, tzinfo=UTC)


def register_with_reference(loop: Loop, folder: Path) -> None:
    """A version whose reference are 100 messages like those of the day."""
    digest = write_artefact(folder, "query")
    predictor = Predictor.load(folder, expected_digest=digest)
    features = pl.DataFrame({name: [0.0] * 100 for name in DEFAULTS})
    window = observe(predictor, [f"where is order {n}" for n in range(100)], features, [None] * 100)
    build_profile(window, labels=predictor.labels).save(folder / REFERENCE)
    version = loop.registry().register(loop.model, None, folder, digest, "", {})
    gate = {"metrics": {"f1_weighted": 0.95, "accuracy": 0.95}}
    loop.registry().attach_evidence(loop.model, version.version, "gate", gate)


@pytest.mark.slow  # MLflow
def test_each_drift_asset_of_a_judged_day_links_to_its_report(
    registered: Loop, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    register_with_reference(registered, tmp_path / "export")
    answers = [prediction(n, text=f"where is order {n}", features=DEFAULTS) for n in range(40)]
    log(registered.home.predictions, *answers)

    assert run_days(registered, instance, "judge_days", DAY, DAY).success

    report = registered.home.reports / "drift" / "2026-03-01.html"
    for asset in ("feature_drift", "prediction_drift", "embedding_drift"):
        found = registered.latest(instance, asset)
        assert found is not None
        assert found["report"] == str(report)
    assert "40 predictions" in report.read_text()


@pytest.mark.slow  # MLflow
def test_making_an_earlier_day_again_leaves_what_is_said_of_the_latest_one(
    registered: Loop, instance: dg.DagsterInstance
) -> None:
    for day, rows in ((DAY, 40), (DAY + timedelta(days=1), 0)):
        at = {"event_timestamp": (day + timedelta(hours=5)).isoformat()}
        log(registered.home.predictions, *(prediction(n, features=DEFAULTS, **at) for n in range(rows)))
    registry = registered.registry()
    record(registry, registered.model, log_pyfunc(registered.settings, "return ['query'] * len(model_input)", "m"))
    for first, last in ((DAY, DAY + timedelta(days=1)), (DAY, DAY)):
        drift = run_days(registered, instance, "judge_days", first, last).get_asset_check_evaluations()
        quiet = [found for found in drift if found.check_name == "quiet"]
        assert {found.metadata["day"].value for found in quiet} == {"2026-03-02"}
        assert all("no predictions on this day" in (found.description or "") for found in quiet)


@pytest.mark.slow  # MLflow
def test_a_day_of_a_version_without_reference_or_promise_is_insufficient_and_no_failure(
    registered: Loop, instance: dg.DagsterInstance
) -> None:
    registry = registered.registry()
    address = log_pyfunc(registered.settings, "return ['query'] * len(model_input)", registered.model)
    version = record(registry, registered.model, address)
    registry.attach_evidence(registered.model, version.version, "gate", {"judged": False})
    log(registered.home.predictions, *(prediction(n, features=DEFAULTS) for n in range(40)))

    assert run_days(registered, instance, "judge_days", DAY, DAY).success

    drift, quality = (read_window(registered.home.windows, kind, DAY) for kind in ("drift", "quality"))
    assert drift is not None
    assert quality is not None
    assert (drift["verdict"], quality["verdict"]) == ("insufficient_data", "insufficient_data")
    assert "it has no reference profile" in drift["summary"]
    assert "there is no figure to hold it to" in quality["message"]
