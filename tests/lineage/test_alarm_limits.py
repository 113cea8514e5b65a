"""The limits of the monitors that page: which days they learn from."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from mlops_assets import clock
from mlops_assets.lineage.alarm_limits import keep_look, refreshed_limits
from mlops_assets.lineage.loop import Loop
from mlops_assets.monitoring.monitors import MonitorResult
from mlops_assets.monitoring.windows import read_windows, write_window
from mlops_assets.storage import read_json
from mlops_assets.verdict import Verdict

DAY = datetime(2026, 3, 1, tzinfo=UTC)


def found(name: str, score: float) -> dict[str, MonitorResult]:
    """What a look found, by check."""
    return {f"quality:{name}": MonitorResult(name, Verdict.PASS, 0.9, 0.9, 100, "", "", None, score=score)}


def test_limits_learn_only_from_days_that_were_judged_and_did_not_drift_however_late_that_is_known(loop: Loop) -> None:
    loop = replace(loop, settings=loop.settings.model_copy(update={"replay_clock": True}))
    for number in range(5):
        clock.move(loop.settings, DAY + timedelta(days=number, hours=12))
        keep_look(loop, found("f1", float(number)))
    drifted = (Verdict.PASS, Verdict.FAIL, Verdict.INSUFFICIENT_DATA, Verdict.ERROR)  # and the fifth is not over
    for number, verdict in enumerate(drifted):
        document = {"verdict": verdict, "reference_version": 1}
        write_window(loop.home.windows, "drift", DAY + timedelta(days=number), document)
    evidence = refreshed_limits(loop).evidence
    assert evidence is not None
    assert read_json(evidence)["quiet_days"] == ["2026-03-01"]


def test_looks_that_are_kept_at_once_are_all_kept(loop: Loop) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda number: keep_look(loop, found(f"monitor{number % 2}", float(number))), range(40)))
    (document,) = read_windows(loop.home.windows, "monitors")
    assert len(document["looks"]) == 40
    assert document["scores"] == {"monitor0": 38.0, "monitor1": 39.0}
