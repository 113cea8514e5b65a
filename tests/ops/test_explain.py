"""From a prediction's id to everything behind it."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlops_assets.cli import app
from mlops_assets.ops.explain import UnknownPrediction, explain_prediction
from mlops_assets.resources.registry import Registry
from mlops_assets.settings import Settings
from mlops_assets.storage import write_json
from tests.monitoring.test_predictions import ARRIVED, label, log, prediction
from tests.serving.factories import MODEL, register, write_artefact
from tests.serving.world import settings_in

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
FACTS = {
    "dagster_run_id": "run-1",
    "snapshot_digest": "5a5a",
    "feature_service": "intent_classifier_v1",
    "spec_digest": "7b7b",
    "code_commit": "9c9c",
    "trained_until": "2026-03-01T00:00:00+00:00",
    "decision": "20260301T000000-run-1",
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path / "home")


def served(settings: Settings, *records: dict[str, Any], torn: str = "") -> None:
    log(settings.model_home(MODEL).predictions, *records, torn=torn)


@pytest.mark.slow  # MLflow
def test_a_prediction_is_traced_to_its_version_data_code_and_evidence(settings: Settings, mlflow_schema: Path) -> None:
    shutil.copytree(mlflow_schema, settings.home / "mlflow")
    registry = Registry(settings)
    digest = write_artefact(settings.home / "export", "refund")
    version = register(registry, settings.home / "export", digest, alias="production")
    registry.set_tags(MODEL, version.version, FACTS)
    served(settings, prediction(1, trace_id=TRACE), prediction(2), torn='{"prediction_id":"p1","te')
    log(settings.model_home(MODEL).feedback, label(1, ARRIVED))
    asked = {"action": "retrain", "cause": "drift", "reason": "traffic drifted on two days", "signals": {"windows": []}}
    write_json(settings.model_home(MODEL).evidence / "retrain" / f"{FACTS['decision']}.json", asked)

    found = explain_prediction(settings, "p1")

    assert found["prediction"]["prediction_id"] == "p1"
    assert found["prediction"]["trace_id"] == TRACE
    assert found["features"] == {"source": "online", "orders_90d": 2.0}
    assert found["label"]["label"] == "refund"
    assert (found["version"]["version"], found["version"]["aliases"]) == (1, ["production"])
    assert found["version"]["artefact_digest"] == digest
    assert found["version"]["feature_service"] == "intent_classifier_v1"
    assert found["origin"]["dagster_run"].endswith("/runs/run-1")
    assert {found["origin"][name] for name in ("snapshot_digest", "spec_digest", "code_commit")} == {
        "5a5a",
        "7b7b",
        "9c9c",
    }
    assert found["evidence: retrain"] == {name: asked[name] for name in ("action", "cause", "reason")}
    assert found["evidence: gate"] == {"verdict": "pass"}
    assert explain_prediction(settings, "p2")["label"] == {"label": "not known yet"}
    assert json.dumps(found)


@pytest.mark.slow
def test_without_a_registry_the_request_is_told_and_what_is_not_known(settings: Settings) -> None:
    served(settings, prediction(1))
    found = explain_prediction(settings, "p1")
    assert found["prediction"]["prediction_id"] == "p1"
    assert "nothing was registered yet" in found["version"]["no more is known"]


def test_of_several_labels_the_one_known_last_is_told_whichever_replica_wrote_it(settings: Settings) -> None:
    served(settings, prediction(1))
    feedback = settings.model_home(MODEL).feedback
    log(feedback, label(1, ARRIVED + timedelta(hours=2), "query"), segment="ingress-0a")
    log(feedback, label(1, ARRIVED + timedelta(hours=1)), segment="ingress-9f")
    assert explain_prediction(settings, "p1")["label"]["label"] == "query"


def test_a_message_is_printed_as_it_is_and_steers_no_terminal(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(settings, prediction(1, text="my [bold]order[/order] :smile: \x1b[2J"))
    monkeypatch.setenv("MLOPS_HOME", str(settings.home))
    monkeypatch.setenv("MLOPS_MODELS_DIR", str(settings.models_dir))
    said = CliRunner().invoke(app, ["explain", "p1"])
    assert said.exit_code == 0
    assert "my [bold]order[/order] :smile: �[2J" in said.stdout


def test_an_id_that_no_log_holds_is_unknown(settings: Settings) -> None:
    served(settings, prediction(1))
    with pytest.raises(UnknownPrediction, match=r"no log under .* holds the prediction p9"):
        explain_prediction(settings, "p9")


def test_an_id_that_stands_only_inside_another_record_is_unknown(settings: Settings) -> None:
    served(settings, prediction(1, text="I was told to quote p9"))
    with pytest.raises(UnknownPrediction):
        explain_prediction(settings, "p9")


def test_a_record_that_was_never_finished_is_no_prediction(settings: Settings) -> None:
    served(settings, prediction(1), torn='{"prediction_id":"p9","te')
    with pytest.raises(UnknownPrediction):
        explain_prediction(settings, "p9")
