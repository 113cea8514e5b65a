"""People are told of failed checks, failed runs and releases that were sent back: each once."""

from __future__ import annotations

import json
from collections.abc import Sequence

import dagster as dg
import pytest

from mlops_assets.lineage.loop import Loop, check_result
from mlops_assets.verdict import Verdict
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


def check(
    instance: dg.DagsterInstance,
    key: Sequence[str],
    name: str,
    verdict: Verdict,
    *,
    pages: bool = True,
    blocking: bool = False,
) -> dg.ExecuteInProcessResult:
    """A check of an asset that ran."""
    spec = dg.AssetCheckSpec(name, asset=dg.AssetKey(key), blocking=blocking)
    severity = dg.AssetCheckSeverity.ERROR if pages else dg.AssetCheckSeverity.WARN

    @dg.asset(key=spec.asset_key, check_specs=[spec])
    def asset() -> dg.MaterializeResult:
        found = check_result(name, verdict, "because of this", severity=severity, metadata={"day": "2026-05-10"})
        return dg.MaterializeResult(check_results=[found])

    return dg.materialize([asset], instance=instance, raise_on_error=False)


def test_a_check_that_fails_is_told_once_with_its_reason_and_where_to_look(
    alerts: Alerts, instance: dg.DagsterInstance
) -> None:
    for _ in range(2):
        check(instance, ["m", "quality"], "f1", Verdict.FAIL)
    (said,) = alerts.tick()
    assert (said["title"], said["severity"]) == ("m: answers are worse than promised", "page")
    assert said["body"].startswith("- m/quality:f1 (2026-05-10): because of this\nSince 20")
    assert said["body"].endswith("/assets/m/quality?view=checks")
    check(instance, ["m", "quality"], "f1", Verdict.FAIL)
    assert alerts.tick() == []


def test_checks_of_one_cause_are_one_alert_and_the_urgent_one_makes_it_a_page(
    alerts: Alerts, instance: dg.DagsterInstance
) -> None:
    check(instance, ["m", "feature_drift"], "quiet", Verdict.FAIL, pages=False)
    check(instance, ["m", "prediction_drift"], "quiet", Verdict.FAIL, pages=False)
    (said,) = alerts.tick()
    assert (said["title"], said["severity"]) == ("m: the traffic drifted", "ticket")
    check(instance, ["m", "quality"], "estimated_f1", Verdict.FAIL)
    (said,) = alerts.tick()
    assert said["severity"] == "page"


def test_an_alert_says_what_the_loop_did_about_it(alerts: Alerts, instance: dg.DagsterInstance) -> None:
    decision = {"action": "retrain", "reason": "prediction drifted on two days"}
    key = dg.AssetKey(["m", "retrain_decision"])
    instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=decision))
    check(instance, ["m", "prediction_drift"], "quiet", Verdict.FAIL, pages=False)
    (said,) = alerts.tick()
    assert "Done about it: a retrain was requested (prediction drifted on two days)." in said["body"]


def test_checks_wait_for_the_end_of_the_job_that_judges_a_day(alerts: Alerts, instance: dg.DagsterInstance) -> None:
    @dg.job(name="m_judge_days")
    def judge_days() -> None:
        """The job that is still evaluating."""

    run = instance.create_run_for_job(judge_days, status=dg.DagsterRunStatus.STARTED)
    check(instance, ["m", "quality"], "f1", Verdict.FAIL)
    assert alerts.tick() == []
    instance.report_run_canceled(run)
    assert len(alerts.tick()) == 1


def test_an_alert_that_is_over_is_told_too_and_failing_again_is_news(
    alerts: Alerts, instance: dg.DagsterInstance
) -> None:
    said = []
    for verdict in (Verdict.FAIL, Verdict.PASS, Verdict.FAIL):
        check(instance, ["m", "quality"], "f1", verdict)
        said += [(message["title"].partition(": ")[2], message["severity"]) for message in alerts.tick()]
    worse = "answers are worse than promised"
    assert said == [(worse, "page"), (f"{worse}: over", "resolved"), (worse, "page")]


@pytest.mark.parametrize(
    ("key", "name", "verdict"),
    [
        (["m", "quality"], "f1", Verdict.PASS),
        (["m", "quality"], "f1", Verdict.INSUFFICIENT_DATA),
        (["another_model", "quality"], "f1", Verdict.FAIL),
        (["m", "retrain_decision"], "not_due", Verdict.FAIL),
    ],
    ids=["passed", "too little data", "of another model", "a retrain that is due"],
)
def test_what_is_no_alarm_is_not_told(
    alerts: Alerts, instance: dg.DagsterInstance, key: list[str], name: str, verdict: Verdict
) -> None:
    check(instance, key, name, verdict)
    assert alerts.tick() == []


def test_a_run_that_a_check_stopped_is_told_as_the_check(alerts: Alerts, instance: dg.DagsterInstance) -> None:
    stopped = check(instance, ["m", "validated_messages"], "contract", Verdict.FAIL, blocking=True)
    assert not stopped.success
    (said,) = alerts.tick()
    assert said["title"] == "m: data is broken"


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
