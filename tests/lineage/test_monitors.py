"""The monitors, as Dagster runs them: each on its asset, with what they found, how sure, and whether it pages."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import dagster as dg
import polars as pl
import pytest

from mlops_assets import clock
from mlops_assets.data.tables import write_table
from mlops_assets.lineage import monitors
from mlops_assets.lineage.loop import STEP_TAG, Loop, range_tags
from mlops_assets.lineage.signals import gather_signals
from mlops_assets.monitoring.windows import read_window, write_window
from mlops_assets.spec import MonitorSpec
from mlops_assets.storage import read_json
from tests.data.factories import events, messages
from tests.lineage.lived import DAY, in_production, judged, live_through
from tests.lineage.world import definitions, metadata, put, run_days
from tests.serving.factories import LABELS

pytestmark = pytest.mark.slow  # MLflow


@pytest.fixture
def loop(registered: Loop) -> Loop:
    return in_production(registered)


def verdicts(checks: dict[str, dg.AssetCheckEvaluation]) -> dict[str, Any]:
    return {name: check.metadata["verdict"].value for name, check in checks.items()}


def test_a_quiet_day_pages_nobody_and_says_what_it_could_not_tell(loop: Loop, instance: dg.DagsterInstance) -> None:
    live_through(loop, DAY, wrong=0.1)
    checks = judged(loop, instance, DAY)
    said = verdicts(checks)
    assert {name: said[name] for name in ("f1", "correctness", "estimated_f1", "prediction_mix", "feature_shift")} == {
        "f1": "pass",
        "correctness": "pass",
        "estimated_f1": "pass",
        "prediction_mix": "pass",
        "feature_shift": "pass",
    }
    assert (said["latency"], said["throughput"], said["processor"]) == ("insufficient_data",) * 3
    assert {checks[name].severity for name in said} == {dg.AssetCheckSeverity.WARN}
    assert checks["f1"].metadata["plain_rule"].value == "F1 < 0.800 (promised 0.850 less 0.05): quiet"


def test_answers_that_turn_wrong_page_by_what_the_labels_prove(loop: Loop, instance: dg.DagsterInstance) -> None:
    live_through(loop, DAY, wrong=0.6)
    checks = judged(loop, instance, DAY)
    for name in ("f1", "correctness"):
        assert (verdicts(checks)[name], checks[name].severity) == ("fail", dg.AssetCheckSeverity.ERROR)
        assert float(checks[name].metadata["score"].value) > float(checks[name].metadata["pages_from_score"].value)  # type: ignore[arg-type]
    assert verdicts(checks)["estimated_f1"] == "pass"  # the messages look the same: only labels could tell


def test_the_estimate_is_kept_beside_the_realised_figures_with_its_error(
    loop: Loop, instance: dg.DagsterInstance
) -> None:
    live_through(loop, DAY, wrong=0.6)
    judged(loop, instance, DAY)
    document = read_window(loop.home.windows, "quality", DAY)
    assert document is not None
    assert document["estimate"]["accuracy"] == pytest.approx(0.9, abs=0.01)
    assert document["estimate_error"]["accuracy"] == pytest.approx(0.5, abs=0.01)
    assert document["estimate_error"]["covered"] is False


@pytest.mark.parametrize(("drifted", "verdict"), [(1, "pass"), (2, "fail")], ids=["one day", "two days in a row"])
def test_a_confirmed_drift_pages_by_the_upper_end_of_what_is_expected(
    loop: Loop, instance: dg.DagsterInstance, drifted: int, verdict: str
) -> None:
    """Confidences so low that the interval misses the promise, though not with the evidence that a page asks for."""
    unsure = [0.78 if name == "query" else 0.22 / 6 for name in LABELS]
    for day in range(drifted):
        live_through(
            loop,
            DAY + timedelta(days=day),
            wrong=0.3,
            probabilities=unsure,
            text=" and please cancel my booking",
        )
        checks = judged(loop, instance, DAY + timedelta(days=day))
        assert (read_window(loop.home.windows, "drift", DAY + timedelta(days=day)) or {})["verdict"] == "fail"
    assert verdicts(checks)["estimated_f1"] == verdict


def test_a_decision_about_a_shift_keeps_when_it_began(loop: Loop, instance: dg.DagsterInstance) -> None:
    for number, text in enumerate(("", *[" and please cancel my booking"] * 2)):
        live_through(loop, DAY + timedelta(days=number), wrong=0.1, text=text)
        judged(loop, instance, DAY + timedelta(days=number))
    decisions = [read_json(path) for path in sorted((loop.home.evidence / "retrain").glob("*.json"))]
    kept = [(decision["cause"], decision["shift_began"]) for decision in decisions]
    assert kept == [(None, None), (None, None), ("drift", "2026-03-02")]
    predecessors = {"verdict": "fail", "reference_version": 0}
    write_window(loop.home.windows, "drift", DAY + timedelta(days=3), predecessors)
    shown = gather_signals(loop, instance, schedule_due=False).windows
    assert [(window.day.day, window.verdict.value) for window in shown] == [(1, "pass"), (2, "fail"), (3, "fail")]


def test_slow_answers_page_once_enough_of_them_prove_it(loop: Loop, instance: dg.DagsterInstance) -> None:
    live_through(loop, DAY, wrong=0.1, latency_ms=250.0)
    checks = judged(loop, instance, DAY)
    assert (verdicts(checks)["latency"], checks["latency"].severity) == ("fail", dg.AssetCheckSeverity.ERROR)
    assert (checks["latency"].description or "").startswith("150 of 150 answers took longer than 100 ms")


def test_the_limits_are_kept_with_their_evidence_and_set_anew_each_week(
    loop: Loop, instance: dg.DagsterInstance
) -> None:
    for day in (0, 1, 8):
        live_through(loop, DAY + timedelta(days=day), wrong=0.1)
        judged(loop, instance, DAY + timedelta(days=day))
    first, second = (read_json(path) for path in sorted((loop.home.evidence / "alarm_limits").glob("*.json")))
    assert (first["version"], first["pages_per_quarter"], first["quiet_days"]) == (1, 1.0, [])
    assert second["quiet_days"] == ["2026-03-01", "2026-03-02"]
    assert second["replay"]["pages"] == 0
    assert set(second["limits"]["f1"]) == {"score", "analytic", "from_history", "days"}


def test_values_that_are_missing_at_arrival_are_told_and_nothing_is_trained_on_them(
    loop: Loop, instance: dg.DagsterInstance
) -> None:
    loop = replace(loop, spec=loop.spec.model_copy(update={"monitors": MonitorSpec(max_missing_share=0.01)}))
    clock.move(loop.settings, DAY + timedelta(days=14))  # the messages are of 13 days
    rows = messages(300)
    put(loop, "a.parquet", rows.with_columns(text=pl.when(pl.int_range(300) > 13).then("text")))
    result = run_days(loop, instance, "ingest", DAY, DAY)
    (missing,) = (e for e in result.get_asset_check_evaluations() if e.check_name == "missing_values")
    assert not missing.passed
    assert missing.severity is dg.AssetCheckSeverity.ERROR
    assert (missing.description or "").startswith("a.parquet: text: 14 of 300 values missing")
    decided = definitions(loop).resolve_job_def("m_decide").execute_in_process(instance=instance)
    assert metadata(decided, loop, "retrain_decision")["action"] == "mend_data"
    assert "text: 14 of 300" in metadata(decided, loop, "retrain_decision")["reason"]
    ingest, begun = definitions(loop).resolve_job_def("m_ingest"), dg.DagsterRunStatus.STARTED
    instance.create_run_for_job(ingest, status=begun, tags=range_tags(DAY, DAY))  # it is evaluated anew
    decided = definitions(loop).resolve_job_def("m_decide").execute_in_process(instance=instance)
    assert metadata(decided, loop, "retrain_decision")["action"] == "mend_data"

    put(loop, "a.parquet", rows)
    run_days(loop, instance, "ingest", DAY, DAY)
    decided = definitions(loop).resolve_job_def("m_decide").execute_in_process(instance=instance)
    assert metadata(decided, loop, "retrain_decision")["action"] == "none"


def test_a_value_that_the_contract_lets_be_missing_is_not_missed(registered: Loop) -> None:
    put(registered, "a.parquet", messages(100, customer_id=[None] * 100))  # visitors without an account
    bought = events([("c", day, 1, 10.0, 0, 0.0) for day in range(100)]).with_columns(country=pl.lit(None, pl.String))
    write_table(registered.settings.customer_events / "b.parquet", bought)
    at_arrival = [check() for check in monitors.build(registered)[1:]]
    said = {result.asset_key: (result.passed, result.description) for result in at_arrival}
    assert said == {
        registered.key("validated_messages"): (True, "a.parquet: no value of 3 columns is missing in 100 rows"),
        registered.key("customer_features"): (True, "b.parquet: no value of 6 columns is missing in 100 rows"),
    }


def test_every_decision_stands_in_the_ledger_with_its_reason(loop: Loop, instance: dg.DagsterInstance) -> None:
    live_through(loop, DAY, wrong=0.1)
    judged(loop, instance, DAY)
    decided = definitions(loop).resolve_job_def("m_decide").execute_in_process(instance=instance)
    ledger = pl.read_parquet(loop.home.evidence / "decision_ledger.parquet")
    assert ledger["action"].to_list() == ["none", "none"]
    assert ledger["new_labels"].to_list() == [150, 150]
    table = metadata(decided, loop, "decision_ledger")["decisions"]
    assert table.splitlines()[0] == "| at | action | cause | reason | outcome |"
    assert len(table.splitlines()) == 4


def tick(loop: Loop, instance: dg.DagsterInstance) -> list[str]:
    """The run keys that the sensor of days asks for."""
    found = definitions(loop).resolve_sensor_def("m_days").evaluate_tick(dg.build_sensor_context(instance=instance))
    return [request.run_key or "" for request in found.run_requests or ()]


def done(instance: dg.DagsterInstance, step: str) -> None:
    @dg.job
    def ran() -> None:
        """Any job."""

    instance.create_run_for_job(ran, status=dg.DagsterRunStatus.SUCCESS, tags={STEP_TAG: f"m:{step}"})


def test_the_monitors_are_looked_at_every_hour_once(loop: Loop, instance: dg.DagsterInstance) -> None:
    live_through(loop, DAY, wrong=0.1)
    assert tick(loop, instance) == ["m:judge-2026-03-01:0"]
    done(instance, "judge-2026-03-01")
    assert tick(loop, instance) == []  # the day was judged within this hour
    clock.move(loop.settings, DAY + timedelta(days=1, hours=5, minutes=20))
    assert tick(loop, instance) == ["m:watch-2026-03-02T05:0"]
    done(instance, "watch-2026-03-02T05")
    assert tick(loop, instance) == []
    result = run_days(loop, instance, "watch", DAY, DAY)
    assert result.success
    assert {e.check_name for e in result.get_asset_check_evaluations()} >= {"f1", "latency", "throughput", "processor"}


def test_a_model_that_grows_old_without_traffic_is_brought_before_the_policy_daily(
    loop: Loop, instance: dg.DagsterInstance
) -> None:
    clock.move(loop.settings, DAY + timedelta(days=29))
    assert tick(loop, instance) == []
    clock.move(loop.settings, DAY + timedelta(days=31))
    assert tick(loop, instance) == ["m:decide-2026-03-31:0"]
    decided = definitions(loop).resolve_job_def("m_decide").execute_in_process(instance=instance)
    assert metadata(decided, loop, "retrain_decision")["cause"] == "stale"
