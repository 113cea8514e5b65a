"""Monitoring, as Dagster runs it: a day is judged once it is over, and again while labels come back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl
import pytest

from mlops_assets import clock
from mlops_assets.lineage.loop import STEP_TAG, Loop
from mlops_assets.monitoring.windows import read_window
from tests.lineage.world import definitions, metadata, run_days
from tests.monitoring.test_predictions import ARRIVED, label, log, prediction

DAY = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def replayed(loop: Loop) -> Loop:
    """A model whose clock stands at the end of the first day with predictions."""
    replayed = replace(loop, settings=loop.settings.model_copy(update={"replay_clock": True}))
    clock.move(replayed.settings, DAY + timedelta(days=1))
    log(replayed.home.predictions, prediction(1), prediction(2), prediction(3, repeat=True))
    return replayed


def tick(loop: Loop, instance: dg.DagsterInstance) -> dg.SensorResult:
    return definitions(loop).resolve_sensor_def("m_days").evaluate_tick(dg.build_sensor_context(instance=instance))


def labelled(loop: Loop, instance: dg.DagsterInstance) -> pl.DataFrame:
    made = dg.materialize(
        [asset for asset in definitions(loop).assets or () if isinstance(asset, dg.AssetsDefinition)],
        selection=[loop.key("labelled_predictions")],
        instance=instance,
        partition_key=f"{DAY:%Y-%m-%d}",
    )
    assert made.success
    return pl.read_parquet(loop.home.labelled / "2026-03-01.parquet")


def test_a_day_is_asked_for_once_it_is_over(replayed: Loop, instance: dg.DagsterInstance) -> None:
    (request,) = tick(replayed, instance).run_requests or []
    assert request.run_key == "m:judge-2026-03-01:0"
    assert request.tags["dagster/asset_partition_range_start"] == "2026-03-01"
    assert request.tags["dagster/asset_partition_range_end"] == "2026-03-01"


def judged(loop: Loop, instance: dg.DagsterInstance, first: datetime, last: datetime) -> None:
    """The days from `first` to `last` have been judged and reported."""
    for number in range((last - first).days + 1):
        day = f"{first + timedelta(days=number):%Y-%m-%d}"
        for asset in ("predictions", "labelled_predictions"):
            instance.report_runless_asset_event(dg.AssetMaterialization(loop.key(asset), partition=day))


def asked_for(loop: Loop, instance: dg.DagsterInstance) -> tuple[str, str]:
    """The first and the last of the days that the sensor asks for."""
    (request,) = tick(loop, instance).run_requests or []
    return request.tags["dagster/asset_partition_range_start"], request.tags["dagster/asset_partition_range_end"]


@pytest.mark.slow
def test_days_before_it_are_judged_again_while_labels_come_back(replayed: Loop, instance: dg.DagsterInstance) -> None:
    clock.move(replayed.settings, DAY + timedelta(days=5))
    assert asked_for(replayed, instance) == ("2026-03-01", "2026-03-05")
    judged(replayed, instance, DAY, DAY + timedelta(days=38))
    clock.move(replayed.settings, DAY + timedelta(days=40))
    assert asked_for(replayed, instance) == ("2026-03-30", "2026-04-09")
    slow = replayed.spec.data.model_copy(update={"labels_within_days": 21})
    patient = replace(replayed, spec=replayed.spec.model_copy(update={"data": slow}))
    assert asked_for(patient, instance) == ("2026-03-19", "2026-04-09")


def test_after_a_long_outage_every_day_that_was_never_judged_is(replayed: Loop, instance: dg.DagsterInstance) -> None:
    judged(replayed, instance, DAY, DAY + timedelta(days=2))
    clock.move(replayed.settings, DAY + timedelta(days=40))
    assert asked_for(replayed, instance) == ("2026-03-04", "2026-04-09")
    reported = [event.partition for event in tick(replayed, instance).asset_events]
    assert (reported[0], reported[-1], len(reported)) == ("2026-03-04", "2026-04-09", 37)


@pytest.mark.slow
def test_days_that_the_log_no_longer_has_are_judged_again_as_well(replayed: Loop, instance: dg.DagsterInstance) -> None:
    labelled(replayed, instance)
    later = prediction(9, event_timestamp=(DAY + timedelta(days=4)).isoformat())
    log(replayed.home.predictions, later)  # the first day's segment is gone
    clock.move(replayed.settings, DAY + timedelta(days=6))
    (request,) = tick(replayed, instance).run_requests or []
    assert request.tags["dagster/asset_partition_range_start"] == "2026-03-01"


def test_a_day_that_was_judged_is_not_asked_for_again(replayed: Loop, instance: dg.DagsterInstance) -> None:
    @dg.job
    def judged() -> None:
        """Any job."""

    instance.create_run_for_job(judged, status=dg.DagsterRunStatus.SUCCESS, tags={STEP_TAG: "m:judge-2026-03-01"})
    assert not tick(replayed, instance).run_requests


@pytest.mark.slow  # MLflow
def test_before_the_first_day_is_over_there_is_nothing_to_judge(registered: Loop, instance: dg.DagsterInstance) -> None:
    assert not tick(registered, instance).run_requests
    log(registered.home.predictions, prediction(1, event_timestamp=datetime.now(UTC).isoformat()))
    assert not tick(registered, instance).run_requests


def test_a_day_is_labelled_as_known_then_and_again_when_more_is_known(
    replayed: Loop, instance: dg.DagsterInstance
) -> None:
    log(replayed.home.feedback, label(1, ARRIVED + timedelta(days=3)))
    assert labelled(replayed, instance)["label"].to_list() == [None, None]
    clock.move(replayed.settings, DAY + timedelta(days=9))
    assert sorted(labelled(replayed, instance)["label"].to_list(), key=str) == [None, "refund"]


@pytest.mark.slow
def test_making_a_day_again_gives_the_same_bytes(replayed: Loop, instance: dg.DagsterInstance) -> None:
    labelled(replayed, instance)
    file = replayed.home.labelled / "2026-03-01.parquet"
    before = file.read_bytes()
    labelled(replayed, instance)
    assert file.read_bytes() == before


@pytest.mark.slow  # MLflow
def test_a_day_without_any_traffic_is_judged_as_insufficient_not_as_quiet(
    registered: Loop, instance: dg.DagsterInstance
) -> None:
    made = run_days(registered, instance, "judge_days", DAY, DAY)
    assert made.success
    found = read_window(registered.home.windows, "drift", DAY)
    assert found is not None
    assert found["verdict"] == "insufficient_data"
    quality = read_window(registered.home.windows, "quality", DAY)
    assert quality is not None
    assert quality["verdict"] == "insufficient_data"
    assert metadata(made, registered, "labelled_predictions")["labels_without_prediction"] == 0


@pytest.mark.slow
def test_a_log_that_was_read_goes_after_its_time_and_the_day_keeps_its_answers_and_takes_a_later_label(
    replayed: Loop, instance: dg.DagsterInstance
) -> None:
    replayed = replace(replayed, settings=replayed.settings.model_copy(update={"log_retention_days": 14}))
    (segment,) = replayed.home.predictions.glob("*.ndjson")
    segment.rename(segment.with_name("replica-20260301T120000000000.ndjson"))
    assert labelled(replayed, instance).height == 2
    assert list(replayed.home.predictions.glob("*.ndjson"))  # no wall clock, no age
    loop = replace(replayed, settings=replayed.settings.model_copy(update={"replay_clock": False}))
    assert labelled(loop, instance).height == 2
    assert (loop.latest(instance, "labelled_predictions") or {})["log_segments_removed"] == 1
    assert not list(loop.home.predictions.glob("*.ndjson"))
    log(loop.home.feedback, label(1, ARRIVED + timedelta(days=45)))
    kept = {"log_retention_days": None}  # whatever is wanted by now
    changed = replace(loop, settings=loop.settings.model_copy(update=kept))
    assert labelled(changed, instance)["label"].to_list() == ["refund", None]


@pytest.mark.slow
def test_what_was_logged_long_before_a_day_is_read_for_it_only_where_the_clock_is_replayed(
    replayed: Loop, instance: dg.DagsterInstance
) -> None:
    log(replayed.home.predictions, prediction(4), segment="replica-20260227T230000000000", torn='{"prediction_id":"p')
    assert labelled(replayed, instance).height == 3
    assert (replayed.latest(instance, "labelled_predictions") or {})["torn_lines"] == 1
    loop = replace(replayed, settings=replayed.settings.model_copy(update={"replay_clock": False}))
    assert labelled(loop, instance).height == 3  # what was labelled stays so
    assert (loop.latest(instance, "labelled_predictions") or {})["torn_lines"] == 0
