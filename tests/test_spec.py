"""What a declaration may say, whatever file it comes from."""

from __future__ import annotations

import re

import pytest
from dagster._utils.schedules import is_valid_cron_schedule
from pydantic import BaseModel

from mlops_assets.settings import PROJECT_ROOT
from mlops_assets.spec import FEATURES, ModelSpec, RetrainSpec


def parts(part: type[BaseModel]) -> list[type[BaseModel]]:
    inner = [f.annotation for f in part.model_fields.values()]
    return [part, *(p for i in inner if isinstance(i, type) and issubclass(i, BaseModel) for p in parts(i))]


def test_the_features_are_those_of_the_view() -> None:
    view = (PROJECT_ROOT / "feature_repo" / "views.py").read_text()
    assert re.findall(r'Field\(name="(\w+)"', view) == ["customer_id", *FEATURES]


def test_every_part_refuses_what_it_does_not_know_and_cannot_be_changed() -> None:
    for part in parts(ModelSpec):
        assert part.model_config["extra"] == "forbid", part
        assert part.model_config["frozen"], part


@pytest.mark.parametrize("schedule", ["0 2 * * 1", "*/15 8-18 * * MON-FRI", "@daily", "0 2 29 2 *", "0 2 L * *"])
def test_a_schedule_that_is_taken_here_is_taken_by_dagster(schedule: str) -> None:
    assert RetrainSpec(schedule=schedule).schedule == schedule
    assert is_valid_cron_schedule(schedule)
