"""People are told of failed checks, failed runs and releases that were sent back: each once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import ThreadingHTTPServer

import dagster as dg
import pytest

from mlops_assets.lineage.loop import Loop, check_result
from mlops_assets.lineage.signals import DECISION_TAG
from mlops_assets.resources.registry import OFFERED_TAG
from mlops_assets.serving.exposition import Heard, exposition
from mlops_assets.serving.metrics import Figures
from mlops_assets.verdict import Verdict
from tests.http_server import QuietHandler, listening
from tests.lineage.guard import Rollout, served
from tests.lineage.world import definitions, retrain_run
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
    return Alerts(beside(registered, port=1), instance)  # where no endpoint listens


def beside(loop: Loop, port: int) -> Loop:
    """The model, with its endpoint at a port."""
    return replace(loop, settings=loop.settings.model_copy(update={"serve_port": port}))


@contextmanager
def endpoint_that_refuses(versions: list[int]) -> Iterator[int]:
    """A port where an endpoint tells, scrape by scrape, which version its replica refuses; 0: none."""

    class Metrics(QuietHandler):
        def do_GET(self) -> None:
            heard = {"replica": Heard({"m": Figures(refused=versions[0])}, 0.1)}
            self.say(exposition(heard, {}, registry_ok=True).encode())

    with listening(ThreadingHTTPServer(("127.0.0.1", 0), Metrics)) as server:
        yield server.server_port


def test_a_version_that_the_endpoint_refuses_for_its_files_is_a_page_until_it_is_mended(
    registered: Loop, instance: dg.DagsterInstance
) -> None:
    refused = [0]
    with endpoint_that_refuses(refused) as port:
        alerts = Alerts(beside(registered, port), instance)
        assert alerts.tick() == []
        refused[0] = 3
        (said,) = alerts.tick()
        assert (said["title"], said["severity"]) == ("m: a version is refused", "page")
        assert "version 3: its files are not those that were registered" in said["body"]
        assert "Done about it: it does not serve, what served before goes on." in said["body"]
        assert alerts.tick() == []
        refused[0] = 0
        (said,) = alerts.tick()
        assert said["severity"] == "resolved"


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
    decision = {"action": "retrain", "cause": "drift", "reason": "prediction drifted on two days"}
    key = dg.AssetKey(["m", "retrain_decision"])
    instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=decision))
    check(instance, ["m", "prediction_drift"], "quiet", Verdict.FAIL, pages=False)
    (said,) = alerts.tick()
    assert "Done about it: a retrain was requested (prediction drifted on two days)." in said["body"]


def test_a_person_is_told_once_that_retraining_does_not_help_although_the_cause_is_known(
    alerts: Alerts, instance: dg.DagsterInstance
) -> None:
    def decided(action: str, cause: str, reason: str) -> list[tuple[str, str]]:
        metadata = {"action": action, "cause": cause, "reason": reason}
        key = dg.AssetKey(["m", "retrain_decision"])
        instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=metadata))
        return [(message["title"], message["severity"]) for message in alerts.tick()]

    check(instance, ["m", "prediction_drift"], "quiet", Verdict.FAIL, pages=False)
    assert decided("wait", "drift", "it drifted, but the last retrain cools down") == [
        ("m: the traffic drifted", "ticket")
    ]
    in_vain = ("none", "drift", "it drifted, but 2 retrains for it did not help: a person is told")
    assert decided(*in_vain) == [("m: retraining does not help", "ticket")]
    assert decided(*in_vain) == []
    assert decided("none", "", "nothing calls for it") == [("m: retraining does not help: over", "resolved")]


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
    ],
    ids=["passed", "too little data", "of another model"],
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


def test_what_comes_after_a_retrain_that_failed_is_told(
    alerts: Alerts, registered: Loop, instance: dg.DagsterInstance
) -> None:
    run = retrain_run(registered, instance, dg.DagsterRunStatus.STARTED, {DECISION_TAG: "d1"})
    instance.report_run_failed(instance.get_run_by_id(run))
    (said,) = alerts.tick()
    assert said["body"].startswith("Done about it: the retrain policy is asked again when the next day is judged")


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


def sent_back(loop: Loop) -> int:
    """A version whose rollout failed."""
    version = on_trial(loop)
    loop.registry().drop_alias("m", "canary", expected=version)
    loop.registry().attach_evidence("m", version, "rollout", {"reason": "12 of 40 answers were wrong"})
    loop.registry().set_tags("m", version, {"rollout": "failed"})
    return version


def test_what_a_crash_kept_from_being_told_is_told_later(
    alerts: Alerts, registered: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Stands for a kill -9 before anybody is told."""

    def kill(*_: object) -> None:
        raise Killed

    version = sent_back(registered)
    with monkeypatch.context() as patch:
        patch.setattr("mlops_assets.resources.notify.notify", kill)
        with pytest.raises(Killed):
            alerts.tick()
    assert [said["title"] for said in alerts.tick()] == [f"m: the rollout of version {version} ended failed"]
    assert alerts.tick() == []


def test_a_version_that_was_offered_again_and_sent_back_again_is_told_again(alerts: Alerts, registered: Loop) -> None:
    version = sent_back(registered)
    assert len(alerts.tick()) == 1
    registered.registry().set_tags("m", version, {"rollout": "offered", OFFERED_TAG: "1"})
    assert alerts.tick() == []
    registered.registry().set_tags("m", version, {"rollout": "failed"})
    assert len(alerts.tick()) == 1
    assert alerts.tick() == []


def test_while_the_registry_is_away_checks_are_told_all_the_same(
    registered: Loop, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = registered.settings.model_copy(update={"mlflow_tracking_uri": "http://127.0.0.1:1", "serve_port": 1})
    alerts = Alerts(replace(registered, settings=away), instance)
    check(instance, ["m", "quality"], "f1", Verdict.FAIL)
    assert [said["title"] for said in alerts.tick()] == ["m: answers are worse than promised"]


def on_trial(loop: Loop) -> int:
    """A version that has the alias canary."""
    registry, folder = loop.registry(), loop.settings.home / "export"
    version = registry.register("m", None, folder, write_artefact(folder, "query"), "tiny", {"gate": "pass"}).version
    registry.attach_evidence("m", version, "gate", {"verdict": "pass"})
    registry.move_alias("m", "canary", version, expected=None, evidence_name="gate")
    return version


def guarded_by(port: int, loop: Loop) -> Loop:
    return replace(loop, settings=loop.settings.model_copy(update={"serve_port": port}))


@pytest.mark.parametrize("end", ["approved", "aborted"])
def test_a_version_that_waits_for_a_person_is_told_once_and_so_is_its_end(
    registered: Loop, instance: dg.DagsterInstance, end: str
) -> None:
    registry, version = registered.registry(), on_trial(registered)
    guard = Rollout(registry, "m", version, "progressing", "3 of 30 minutes")
    with served(guard) as port:
        alerts = Alerts(guarded_by(port, registered), instance)
        assert alerts.tick() == []
        guard.phase, guard.reason = "waiting_promotion", "fit; waits for a person: mlops approve 1 --by NAME"
        (said,) = alerts.tick()
        assert (said["title"], said["severity"]) == ("m: a version waits for a person", "ticket")
        assert said["body"].startswith(f"- m/canary:decided: version {version}: fit; waits for a person: mlops approve")
        assert said["body"].endswith("/models/m/rollout/page")
        assert alerts.tick() == []
        if end == "approved":
            guard.phase = "sealed"
        else:
            registry.drop_alias("m", "canary", expected=version)
        (said,) = alerts.tick()
        assert (said["title"], said["severity"]) == ("m: a version waits for a person: over", "resolved")
        assert alerts.tick() == []


def test_while_the_endpoint_cannot_say_a_waiting_version_is_neither_told_again_nor_taken_for_decided(
    registered: Loop, instance: dg.DagsterInstance
) -> None:
    registry, version = registered.registry(), on_trial(registered)
    with served(Rollout(registry, "m", version, "waiting_promotion", "fit")) as port:
        alerts = Alerts(guarded_by(port, registered), instance)
        assert len(alerts.tick()) == 1
    assert alerts.tick() == []
