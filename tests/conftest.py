"""What several folders of tests share because it takes seconds to make."""

from __future__ import annotations

import re
from pathlib import Path

import hypothesis
import pytest

from mlops_assets.settings import Settings

# No example may fail because the machine is busy.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


_ALL_SLOW = re.compile(r"^pytestmark = (\[[^\]]*)?pytest\.mark\.slow\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import, for `make check`, a file that it would leave out as a whole: that takes as long as the tests."""
    if config.option.markexpr != "not slow" or collection_path.suffix != ".py":
        return None
    return True if _ALL_SLOW.search(collection_path.read_text()) else None


@pytest.fixture(scope="session")
def mlflow_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MLflow folder of a prepared home, to be copied: creating its schema takes seconds."""
    from mlops_assets.resources.mlflow_store import prepare

    settings = Settings(home=tmp_path_factory.mktemp("schema"), _env_file=None)
    prepare(settings)
    return settings.home / "mlflow"
