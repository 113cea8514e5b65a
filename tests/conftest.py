"""What several folders of tests share because it takes seconds to make."""

from __future__ import annotations

import gc
import re
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from mlops_assets.settings import Settings

# No example may fail because the machine is busy.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage meanwhile: imports make millions of objects that stay, and a fifth of the time goes there."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


_ALL_SLOW = re.compile(r"^pytestmark = (\[[^\]]*)?pytest\.mark\.slow\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import, for `make check`, a file that it would leave out as a whole: that takes as long as the tests."""
    if config.option.markexpr != "not slow" or collection_path.suffix != ".py":
        return None
    return True if _ALL_SLOW.search(collection_path.read_text()) else None


@pytest.fixture(autouse=True, scope="session")
def migrations_are_read_once() -> Iterator[None]:
    """Dagster and MLflow read their dozens of migrations with every database that they make or open."""
    read: dict[str | None, ScriptDirectory] = {}
    from_config = ScriptDirectory.from_config

    def once(config: Config) -> ScriptDirectory:
        where = config.get_main_option("script_location")
        return read.get(where) or read.setdefault(where, from_config(config))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", once)
        yield


@pytest.fixture(scope="session")
def mlflow_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MLflow folder of a prepared home, to be copied: creating its schema takes seconds."""
    from mlops_assets.resources.mlflow_store import prepare

    settings = Settings(home=tmp_path_factory.mktemp("schema"), _env_file=None)
    prepare(settings)
    return settings.home / "mlflow"
