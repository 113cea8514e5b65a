"""A model that lived through some days, replayed: its own policy does what was done, another one something else."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from mlops_assets.cli import app
from mlops_assets.lineage.loop import Loop
from mlops_assets.lineage.signals import DECISION_TAG, requested_retrain
from mlops_assets.storage import write_json
from tests.lineage.lived import DAY, in_production, judged, live_through
from tests.lineage.test_alerts import Alerts
from tests.lineage.world import loop_in, retrain_run
from tests.replay.logged import Canary, record
from tests.serving.factories import write_artefact

pytestmark = pytest.mark.slow  # MLflow, and eight days of jobs

LONG = " and I have been waiting for it for such a very long time now"
TITLES = {"drift": "m: the traffic drifted", "quality": "m: answers are worse than promised"}
DAYS = 8


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, mlflow_schema: Path) -> Loop:
    """Two quiet days, three with longer messages, two with wrong answers, a quiet one; a canary failed on the first.

    So a retrain is asked for twice, for drift and for quality; each time its run is cancelled.
    """
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(mlflow_schema, home / "mlflow")
    loop, instance = in_production(loop_in(home)), dg.DagsterInstance.ephemeral()
    failed_canary(loop)
    alerts = Alerts(loop, instance)
    for n in range(DAYS):
        live_through(loop, DAY + timedelta(days=n), wrong=0.6 if n in (5, 6) else 0.1, text=LONG if 2 <= n < 5 else "")
        judged(loop, instance, DAY + timedelta(days=n))
        retrain_in_vain(loop, instance)
        alerts.tick()
    folder = home / "models_dir" / "m"
    folder.mkdir(parents=True)
    (folder / "defs.yaml").write_text("type: x\nattributes: {name: m, owners: ['team:support']}\n")
    return loop


def retrain_in_vain(loop: Loop, instance: dg.DagsterInstance) -> None:
    decision = requested_retrain(loop, instance)
    if decision is not None:
        retrain_run(loop, instance, dg.DagsterRunStatus.CANCELED, {DECISION_TAG: decision})


def failed_canary(loop: Loop) -> None:
    """Version 2, submitted, whose canary failed at noon of the first day."""
    registry, folder = loop.registry(), loop.settings.home / "other"
    tags = {"gate": "waived", "trained_until": DAY.isoformat(), "decision": "", "rollout": "failed", "alerted": "true"}
    digest = write_artefact(folder, "refund")
    version = registry.register("m", None, folder, digest, "tiny", tags).version
    logged = record(loop.home.root, loop.spec.canary, Canary(failures=0.2), first=10_000_000)
    assert logged.state.phase.value == "failed"
    registry.attach_evidence("m", version, "rollout", {"rollout": logged.state.to_dict()})


@pytest.fixture(autouse=True)
def _settings(lived: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_HOME", str(lived.settings.home))
    monkeypatch.setenv("MLOPS_MODELS_DIR", str(lived.settings.home / "models_dir"))


def command(policy: Path, *more: str, first: int = 0, last: int = DAYS - 1) -> Result:
    days = [f"{DAY + timedelta(days=n):%Y-%m-%d}" for n in (first, last)]
    arguments = ["replay", "--policy", str(policy), "--from", days[0], "--to", days[1], "--model", "m", *more]
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})


def replayed(tmp_path: Path, policy: str, **days: int) -> dict[str, Any]:
    """What the command says of a policy, to a machine."""
    path = tmp_path / "policy.yaml"
    path.write_text(policy)
    said = command(path, "--json", **days)
    assert said.exit_code == 0, said.output
    document: dict[str, Any] = json.loads(said.stdout)
    return document


def events(document: dict[str, Any], side: str, *kinds: str) -> list[tuple[int, str, str]]:
    """(day, kind, what) of one side."""
    return [
        (number, event["kind"], event["what"])
        for number, day in enumerate(document["days"])
        for event in day[side]
        if event["kind"] in kinds
    ]


def test_the_models_own_spec_does_what_was_done(lived: Loop) -> None:
    own = lived.settings.home / "models_dir" / "m" / "defs.yaml"
    document = json.loads(command(own, "--json").stdout)
    assert [day["differences"] for day in document["days"]] == [0] * DAYS
    assert document["totals"]["happened"] == document["totals"]["replayed"]
    assert document["totals"]["replayed"] == {
        "pages": 1,
        "tickets": 1,
        "retrains": 2,
        "releases": 0,
        "aborts": 1,
        "inconclusive": 0,
        "unknown": 0,
    }
    assert (document["changes"], document["cannot_be_replayed"], document["unread"]) == ({}, [], [])


def test_what_people_were_told_is_what_the_record_says_they_were_told(lived: Loop, tmp_path: Path) -> None:
    lines = (lived.settings.home / "alerts.ndjson").read_text().splitlines()
    sent = [(alert["severity"], alert["title"].removesuffix(": over")) for alert in map(json.loads, lines)]
    document = replayed(tmp_path, "gate: {min_f1: 0.9}")
    for side in ("happened", "replayed"):
        told = events(document, side, "page", "ticket", "over")
        severity = {"over": "resolved"}
        assert [(severity.get(kind, kind), TITLES[what]) for _, kind, what in told] == sent


def test_a_policy_that_tolerates_more_pages_nobody_and_retrains_nothing(tmp_path: Path) -> None:
    tolerant = "monitors: {max_f1_drop: 0.8}\ndrift: {ks_effect: 1.0, psi: 99, mmd_effect: 1.0, share_effect: 1.0}\n"
    document = replayed(tmp_path, tolerant)
    assert events(document, "replayed", "page", "ticket", "over", "retrain") == []
    assert {what for *_, what in events(document, "replayed", "drift")} == {"pass"}
    assert document["totals"]["happened"]["pages"] == 1
    assert document["changes"]["monitors.max_f1_drop"] == {"own": 0.05, "policy": 0.8}


def test_a_canary_that_was_stopped_is_judged_by_another_policy_from_the_log(tmp_path: Path) -> None:
    strict = replayed(tmp_path, "canary: {min_success: 0.999}")
    assert events(strict, "replayed", "rollout") == [(0, "rollout", "version 2 aborted")]
    wide = replayed(tmp_path, "canary: {weights: [0.5]}")
    assert events(wide, "replayed", "rollout") == [(0, "rollout", "cannot be replayed")]
    assert wide["totals"]["replayed"]["unknown"] == 1


def test_what_is_not_on_record_is_said(tmp_path: Path) -> None:
    document = replayed(tmp_path, "monitors: {max_busy: 0.5}")
    assert document["cannot_be_replayed"] == ["processor: samples of the machine are kept for an hour only"]


def test_two_runs_are_equal_byte_for_byte_and_so_is_the_file(tmp_path: Path) -> None:
    policy, output = tmp_path / "policy.yaml", tmp_path / "replay.json"
    policy.write_text("monitors: {pages_per_quarter: 20}\nretrain: {cooldown_days: 0}\n")
    first = command(policy, "--json")
    second = command(policy, "--json", "--output", str(output))
    assert first.stdout_bytes == second.stdout_bytes
    assert output.read_bytes() == first.stdout_bytes


def test_a_person_sees_the_days_side_by_side_and_the_totals(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("monitors: {max_f1_drop: 0.8}")
    shown = command(policy).stdout
    assert "monitors.max_f1_drop: 0.05 -> 0.8" in shown
    assert "≠ page: quality" in shown
    assert "what the policy would have done" in shown


def test_what_an_earlier_form_of_the_code_wrote_is_passed_over_and_said(lived: Loop, tmp_path: Path) -> None:
    path = next((lived.home.evidence / "retrain").glob("*.json"))
    before = path.read_bytes()
    document = json.loads(before)
    del document["ledger"]
    write_json(path, document)
    try:
        found = replayed(tmp_path, "gate: {min_f1: 0.9}")
    finally:
        path.write_bytes(before)
    assert found["unread"] == ["1 decisions on retraining: written in an earlier form, without 'ledger'"]


REFUSED = {
    "a section that changes the models": ("training: {seed: 1}\n", {}, "training: cannot be replayed: other models"),
    "a typo": ("drift: {alhpa: 1}\n", {}, "policy.yaml:1: drift.alhpa: unknown field; allowed here: alpha, "),
    "days that are not there": ("gate: {}\n", {"first": 50, "last": 60}, "it goes from 2026-03-01 to 2026-03-08"),
    "days in the wrong order": ("gate: {}\n", {"first": 3, "last": 1}, "--from 2026-03-04 lies after --to 2026-03-02"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_replayed_is_refused_with_its_reason(tmp_path: Path, what: str) -> None:
    text, days, reason = REFUSED[what]
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    refused = command(path, **days)
    assert refused.exit_code == 2
    assert reason in " ".join(refused.stderr.split())
