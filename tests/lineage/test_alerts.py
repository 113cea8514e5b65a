"""People are told of failed checks, failed runs and releases that were sent back: each once."""

from __future__ import annotations

import json
from collections.abc import Sequence

import dagster as dg
import pytest

from mlops_assets.lineage.loop import Loop
from tests.lineage.world import definitions
from tests.serving.factories import write_artefact

pytestmark = pytest.mark.slow  # MLflow


class Alerts:
    """The alert sensor, tick by tick; what it told is read from the log of alerts."""

    def __init__(self, loop: Loop, instance: dg.DagsterInstance) -> None:
        self._repository = definitions(loop).get_repository_def()
        self._sensor = self._repository.get_sensor_def("m_alerts")
        self._log = loop.settings.home / "alerts.ndjson"
        self._instance, self._cursor, self._seen = instance, None, 0

    def tick(self) -> list[dict[str, str]]:
        """What is told now that was not told before."""
        context = dg.build_sensor_context(instance=self._instance, cursor=self._cursor, repository_def=self._repository)
        self._cursor = self._sensor.evaluate_tick(context).cursor
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        new, self._seen = lines[self._seen :], len(lines)
        return [json.loads(line) for line in new]


@pytest.fixture
def alerts(registered: Loop, instance: dg.DagsterInstance) -> Alerts:
    return Alerts(registered, instance)


def check(instance: dg.DagsterInstance, key: Sequence[str], name: str, *, passed: bool) -> None:
    """A check of an asset that ran."""
    spec = dg.AssetCheckSpec(name, asset=dg.AssetKey(key))

    @dg.asset(key=spec.asset_key, check_specs=[spec])
    def asset() -> dg.MaterializeResult:
        result = dg.AssetCheckResult(check_name=name, passed=passed, description="because of this")
        return dg.MaterializeResult(check_results=[result])

    dg.materialize([asset], instance=instance)


def test_a_check_that_fails_is_told_once_with_its_reason_and_where_to_look(
    alerts: Alerts, instance: dg.DagsterInstance
) -> None:
    for _ in range(2):
        check(instance, ["m", "quality"], "f1", passed=False)
    (said,) = alerts.tick()
    assert (said["title"], said["severity"]) == ("m/quality: check f1 fails", "page")
    assert said["body"].startswith("because of this\nLook at http")
    assert said["body"].endswith("/assets/m/quality?view=checks")
    check(instance, ["m", "quality"], "f1", passed=False)
    assert alerts.tick() == []


def test_a_check_that_is_well_again_is_told_too_and_failing_again_is_news(
    alerts: Alerts, instance: dg.DagsterInstance
) -> None:
    titles = []
    for passed in (False, True, False):
        check(instance, ["m", "quality"], "f1", passed=passed)
        titles += [said["title"] for said in alerts.tick()]
    assert titles == [f"m/quality: check f1 {now}" for now in ("fails", "no longer fails", "fails")]


@pytest.mark.parametrize(
    ("key", "name", "passed"),
    [
        (["m", "quality"], "f1", True),
        (["another_model", "quality"], "f1", False),
        (["m", "retrain_decision"], "not_due", False),
    ],
    ids=["passed", "of another model", "a retrain that is due"],
)
def test_what_is_no_alarm_is_not_told(
    alerts: Alerts, instance: dg.DagsterInstance, key: list[str], name: str, passed: bool
) -> None:
    check(instance, key, name, passed=passed)
    assert alerts.tick() == []


def test_a_failed_run_of_this_model_is_told(alerts: Alerts, instance: dg.DagsterInstance) -> None:
    for job_name in ("m_ingest", "another_ingest"):

        @dg.op
        def breaks() -> None:
            raise ValueError("broken")

        @dg.job(name=job_name)
        def job() -> None:
            breaks()

        job.execute_in_process(instance=instance, raise_on_error=False)
    (said,) = alerts.tick()
    assert said["title"].endswith("(m_ingest) failed")
    assert alerts.tick() == []


def test_a_release_that_was_sent_back_is_told_once_with_its_reason(alerts: Alerts, registered: Loop) -> None:
    registry = registered.registry()
    folder = registered.settings.home / "export"
    version = registry.register("m", None, folder, write_artefact(folder, "query"), "tiny", {"gate": "pass"}).version
    assert alerts.tick() == []
    registry.attach_evidence("m", version, "rollout", {"reason": "12 of 40 answers were wrong"})
    registry.set_tags("m", version, {"rollout": "failed"})
    (said,) = alerts.tick()
    assert said["title"] == f"m: the rollout of version {version} ended failed"
    assert said["body"].startswith("12 of 40 answers were wrong\n")
    assert alerts.tick() == []
