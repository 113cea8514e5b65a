"""A retrain that was decided on starts: always, once, and never beside another or beside a release."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG

from mlops_assets import clock
from mlops_assets.lineage.loop import Loop
from mlops_assets.lineage.signals import CHAIN, DECISION_TAG
from mlops_assets.resources.registry import Registry
from mlops_assets.verdict import Verdict
from tests.lineage.lived import DAY, in_production, live_through
from tests.lineage.test_alerts import check
from tests.lineage.world import definitions, metadata, retrain_run, run_days
from tests.serving.factories import write_artefact

pytestmark = pytest.mark.slow  # MLflow


@pytest.fixture
def loop(registered: Loop) -> Loop:
    """A model in production that grew too old, with labels to learn from."""
    loop = in_production(registered)
    live_through(loop, DAY, wrong=0.1)
    assert run_days(loop, dg.DagsterInstance.ephemeral(), "watch", DAY, DAY).success
    clock.move(loop.settings, DAY + timedelta(days=31))
    return loop


@pytest.fixture
def registry(loop: Loop) -> Registry:
    return loop.registry()


class Sensor:
    """The sensor's ticks, with its cursor kept between them as the daemon keeps it."""

    def __init__(self, loop: Loop, instance: dg.DagsterInstance) -> None:
        self._loop, self._instance, self._cursor = loop, instance, None

    def tick(self) -> dg.RunRequest | str:
        """The run that is asked for, or why there is none."""
        context = dg.build_sensor_context(instance=self._instance, cursor=self._cursor)
        found = definitions(self._loop).resolve_sensor_def("m_retrain_when_due").evaluate_tick(context)
        self._cursor = found.cursor
        return found.run_requests[0] if found.run_requests else found.skip_message or ""

    def take_up(self, status: dg.DagsterRunStatus, **tags: str) -> str:
        """Launch what is asked for, as the daemon does it; returns the run's id."""
        request = self.tick()
        assert isinstance(request, dg.RunRequest)
        return retrain_run(self._loop, self._instance, status, {**request.tags, **tags})


@pytest.fixture
def sensor(loop: Loop, instance: dg.DagsterInstance) -> Sensor:
    return Sensor(loop, instance)


def decide(loop: Loop, instance: dg.DagsterInstance) -> dict[str, Any]:
    """Ask the policy; what it decided."""
    done = definitions(loop).resolve_job_def("m_decide").execute_in_process(instance=instance)
    return metadata(done, loop, "retrain_decision")


def outcomes(loop: Loop) -> list[str | None]:
    """What the ledger says became of each decision, oldest first."""
    return pl.read_parquet(loop.home.evidence / "decision_ledger.parquet")["outcome"].to_list()


def offer(registry: Registry, decision: str = "") -> int:
    """A version is on its way: somebody's, or that of a decision."""
    folder = Path(registry.settings.home) / "exports" / "refund"
    tags = {"gate": "pass", "decision": decision}
    version = registry.register("m", None, folder, write_artefact(folder, "refund"), "tiny", tags).version
    registry.attach_evidence("m", version, "gate", {"verdict": "pass"})
    registry.move_alias("m", "candidate", version, expected=None, evidence_name="gate")
    return version


def test_nothing_starts_before_there_is_a_decision(sensor: Sensor) -> None:
    assert sensor.tick() == "no retrain is due"


def test_a_decision_that_none_is_due_starts_nothing(registered: Loop, instance: dg.DagsterInstance) -> None:
    young = in_production(registered)
    assert decide(young, instance)["action"] == "none"
    assert Sensor(young, instance).tick() == "no retrain is due"


def test_a_retrain_that_was_decided_on_starts_the_whole_chain_and_carries_its_decision(
    loop: Loop, instance: dg.DagsterInstance, sensor: Sensor
) -> None:
    decision = decide(loop, instance)
    request = sensor.tick()
    assert isinstance(request, dg.RunRequest)
    assert (request.run_key, request.tags[DECISION_TAG]) == (decision["decision"], decision["decision"])
    job = definitions(loop).resolve_job_def("m_retrain")
    assert {key.path[-1] for key in job.asset_layer.executable_asset_keys} == set(CHAIN)


def test_it_starts_also_when_the_next_day_was_judged_before_anybody_looked(
    loop: Loop, instance: dg.DagsterInstance, sensor: Sensor
) -> None:
    due, next_day = decide(loop, instance), decide(loop, instance)
    assert (due["action"], next_day["action"]) == ("retrain", "wait")
    assert next_day["reason"].endswith("was requested at 2026-04-01 00:00 and has not ended: one at a time")
    assert outcomes(loop) == ["requested", None]
    request = sensor.tick()
    assert isinstance(request, dg.RunRequest)
    assert request.run_key == due["decision"]


def test_until_it_was_launched_it_is_asked_for_under_the_same_key(
    loop: Loop, instance: dg.DagsterInstance, sensor: Sensor
) -> None:
    decide(loop, instance)
    asked = [sensor.tick() for _ in range(3)]
    assert len({request.run_key for request in asked if isinstance(request, dg.RunRequest)}) == 1
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("status", "outcome"), [("NOT_STARTED", "pending"), ("STARTED", "pending"), ("FAILURE", "failed")]
)
def test_what_was_taken_up_is_not_started_again(
    loop: Loop, instance: dg.DagsterInstance, sensor: Sensor, status: str, outcome: str
) -> None:
    decide(loop, instance)
    sensor.take_up(dg.DagsterRunStatus[status])
    assert not any(isinstance(sensor.tick(), dg.RunRequest) for _ in range(2))
    decide(loop, instance)
    assert outcomes(loop)[0] == outcome


def test_a_run_that_broke_is_followed_by_the_next_decision(
    loop: Loop, instance: dg.DagsterInstance, sensor: Sensor
) -> None:
    decide(loop, instance)
    sensor.take_up(dg.DagsterRunStatus.FAILURE)
    again = decide(loop, instance)
    request = sensor.tick()
    assert isinstance(request, dg.RunRequest)
    assert (again["action"], request.run_key) == ("retrain", again["decision"])


def test_a_run_whose_worker_died_is_pending_until_it_was_run_again(
    loop: Loop, instance: dg.DagsterInstance, sensor: Sensor
) -> None:
    decided = decide(loop, instance)["decision"]
    died = sensor.take_up(dg.DagsterRunStatus.FAILURE, **{WILL_RETRY_TAG: "true"})
    assert decide(loop, instance)["action"] == "wait"
    again = retrain_run(loop, instance, dg.DagsterRunStatus.FAILURE, {DECISION_TAG: decided})
    instance.add_run_tags(died, {AUTO_RETRY_RUN_ID_TAG: again})
    assert decide(loop, instance)["action"] == "retrain"
    assert outcomes(loop)[0] == "failed"


def test_it_waits_for_a_version_that_is_on_its_way_and_starts_once_that_was_sent_back(
    loop: Loop, registry: Registry, instance: dg.DagsterInstance, sensor: Sensor
) -> None:
    decide(loop, instance)
    version = offer(registry)
    assert sensor.tick() == f"the release of version {version} is under way: one at a time"
    registry.set_tags("m", version, {"rollout": "failed"})
    assert isinstance(sensor.tick(), dg.RunRequest)


@pytest.mark.parametrize(("job", "what"), [("m_retrain", "training"), ("m_submit", "submission")])
def test_it_waits_for_a_run_that_somebody_started_by_hand(
    loop: Loop, instance: dg.DagsterInstance, sensor: Sensor, job: str, what: str
) -> None:
    decide(loop, instance)
    by_hand = definitions(loop).resolve_job_def(job)
    run = instance.create_run_for_job(by_hand, status=dg.DagsterRunStatus.STARTED)
    waits = f"the {what} run {run.run_id[:8]} is under way: one at a time"
    assert sensor.tick() == waits
    instance.report_run_failed(run)
    instance.add_run_tags(run.run_id, {WILL_RETRY_TAG: "true"})  # its worker was killed
    assert sensor.tick() == waits
    instance.add_run_tags(run.run_id, {WILL_RETRY_TAG: "false"})
    assert isinstance(sensor.tick(), dg.RunRequest)


def test_it_waits_while_the_data_cannot_be_trusted(loop: Loop, instance: dg.DagsterInstance, sensor: Sensor) -> None:
    decided = decide(loop, instance)["decision"]
    check(instance, ["m", "validated_messages"], "contract", Verdict.FAIL)
    waits = f"the retrain of decision {decided} waits until the data is mended: because of this"
    assert [sensor.tick(), sensor.tick()] == [waits, waits]
    check(instance, ["m", "validated_messages"], "contract", Verdict.PASS)
    assert isinstance(sensor.tick(), dg.RunRequest)


def test_a_decision_whose_run_was_killed_before_it_could_say_so_is_carried_out(loop: Loop, sensor: Sensor) -> None:
    assert sensor.tick() == "no retrain is due"
    decided = decide(loop, dg.DagsterInstance.ephemeral())["decision"]  # the sensor's saw no materialization
    request = sensor.tick()
    assert isinstance(request, dg.RunRequest)
    assert request.run_key == decided


def test_it_is_dropped_when_another_version_went_into_production_meanwhile(
    loop: Loop, registry: Registry, instance: dg.DagsterInstance, sensor: Sensor
) -> None:
    decide(loop, instance)
    version = offer(registry)
    tags = {"rollout": "succeeded", "production_since": loop.now().isoformat(), "trained_until": DAY.isoformat()}
    registry.set_tags("m", version, tags)
    registry.move_alias("m", "production", version, expected=1, evidence_name="gate")
    registry.drop_alias("m", "candidate", expected=version)
    assert sensor.tick() == "no retrain is due"
    decide(loop, instance)
    assert outcomes(loop)[0] == "overtaken"
    registry.set_tags("m", 1, {"production_since": (loop.now() + timedelta(days=1)).isoformat()})
    registry.move_alias("m", "production", 1, expected=version, evidence_name="gate")
    assert Sensor(loop, instance).tick() == "no retrain is due"  # nor does it come back with the version of then


def test_what_became_of_its_version_stands_in_the_ledger(
    loop: Loop, registry: Registry, instance: dg.DagsterInstance, sensor: Sensor
) -> None:
    decided = decide(loop, instance)["decision"]
    sensor.take_up(dg.DagsterRunStatus.SUCCESS)
    version = offer(registry, decided)
    seen = []
    for rollout in ("", "inconclusive", "failed", "succeeded"):
        registry.set_tags("m", version, {"rollout": rollout})
        decide(loop, instance)
        seen.append(outcomes(loop)[0])
    assert seen == ["pending", "not_released", "not_released", "released"]


@pytest.mark.parametrize(("status", "outcome"), [("SUCCESS", "overtaken"), ("FAILURE", "failed")])
def test_a_version_that_is_on_no_way_was_overtaken_or_broke_while_it_was_registered(
    loop: Loop, registry: Registry, instance: dg.DagsterInstance, sensor: Sensor, status: str, outcome: str
) -> None:
    decided = decide(loop, instance)["decision"]
    sensor.take_up(dg.DagsterRunStatus[status])
    registry.drop_alias("m", "candidate", expected=offer(registry, decided))
    assert decide(loop, instance)["action"] == "retrain"
    assert outcomes(loop)[0] == outcome
