"""The connection to MLflow says what is wrong with it, but not the password in its address."""

from __future__ import annotations

import traceback

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from mlops_assets.ports import free_port
from mlops_assets.resources.mlflow_store import RegistryUnavailable, translated
from mlops_assets.resources.registry import Registry
from mlops_assets.settings import Settings

pytestmark = pytest.mark.slow  # MLflow takes its time to start and to give up


@pytest.fixture
def away(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that name a tracking server where nobody listens."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return settings.model_copy(update={"mlflow_tracking_uri": f"http://ada:s3cret@127.0.0.1:{free_port()}"})


def whole(error: BaseException) -> str:
    """As a log shows it, with its cause."""
    return "".join(traceback.format_exception(error))


def test_a_server_that_is_away_is_named_without_the_password(away: Settings) -> None:
    with pytest.raises(
        RegistryUnavailable, match=r"^MLflow at http://127\.0\.0\.1:\d+: API request to http://127"
    ) as e:
        Registry(away).by_alias("intent_classifier", "production")
    assert "s3cret" not in whole(e.value)


def test_a_database_that_is_away_is_named_without_the_password(settings: Settings) -> None:
    elsewhere = settings.model_copy(update={"mlflow_tracking_uri": "postgresql://ada:s3cret@db/mlflow"})
    with pytest.raises(RegistryUnavailable) as e, translated(elsewhere):
        raise OSError("no route to postgresql://ada:s3cret@db/mlflow")
    assert str(e.value) == "MLflow at postgresql://db/mlflow: no route to postgresql://db/mlflow"


def test_a_refusal_goes_through_without_the_password(away: Settings) -> None:
    with pytest.raises(MlflowException) as e, translated(away):
        raise MlflowException(f"{away.tracking_uri} takes no such name", INVALID_PARAMETER_VALUE)
    assert e.value.error_code == "INVALID_PARAMETER_VALUE"
    assert "takes no such name" in whole(e.value)
    assert "s3cret" not in e.value.message + str(e.value)
