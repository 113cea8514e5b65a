"""A release is verified from its stored inputs; whatever was changed or lost since gets its clear answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from typer.testing import CliRunner

from mlops_assets.cli import app
from mlops_assets.data.snapshots import forget_rows
from mlops_assets.lineage.loop import Loop
from mlops_assets.ops.verify import Verification, verify_version
from mlops_assets.release.replay import Finding, State
from mlops_assets.resources.feast import FeatureStoreDoor
from mlops_assets.resources.registry import Registry
from tests.lineage.judged import judge, snapshot, write_model
from tests.lineage.world import loop_in

pytestmark = pytest.mark.slow  # MLflow and Feast take seconds to import


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory, mlflow_schema: Path) -> Loop:
    """Version 1 in production, version 2 past the gate beside it; tests put back what they change."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(mlflow_schema, home / "mlflow")
    loop, instance = loop_in(home), dg.DagsterInstance.ephemeral()
    FeatureStoreDoor(loop.settings).apply()
    snapshot(loop, 2_500)
    assert judge(loop, instance, write_model(home / "exports" / "1", {"other": "query"}), waiver="the only one").success
    first = {"outcome": "first version", "reason": "no stable arm to compare with"}
    loop.registry().attach_evidence(loop.model, 1, "rollout", first)
    loop.registry().move_alias(loop.model, "production", 1, expected=None, evidence_name="rollout")
    snapshot(loop, 4_000)
    assert judge(loop, instance, write_model(home / "exports" / "2")).success
    return loop


@pytest.fixture
def registry(loop: Loop) -> Registry:
    return loop.registry()


def verified(loop: Loop, version: int = 2) -> Verification:
    return verify_version(loop.settings, loop.model, version)


def finding(found: Verification, name: str) -> Finding:
    return next(one for one in found.findings if one.name == name)


def in_doubt(found: Verification, state: State) -> set[str]:
    """The claims of that state, by the first part of their names."""
    return {one.name.split(".")[1] for one in found.findings if one.state is state}


@contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


@contextmanager
def gone(path: Path) -> Iterator[None]:
    away = path.with_name(f"{path.name}.away")
    path.rename(away)
    try:
        yield
    finally:
        away.rename(path)


def evidence_path(loop: Loop, version: int, pattern: str) -> Path:
    (path,) = loop.settings.artifact_root.rglob(f"evidence/v{version}/{pattern}")
    return path


@pytest.mark.parametrize("version", [1, 2])
def test_a_release_follows_claim_by_claim_from_its_stored_inputs(loop: Loop, version: int) -> None:
    found = verified(loop, version)
    assert {one.state for one in found.findings} == {State.FOLLOWS}
    assert found.exit_code == 0
    recorded = loop.registry().evidence(loop.model, version)["gate"]["decision"]["claims"]
    assert {f"gate.{claim['name']}" for claim in recorded} < {one.name for one in found.findings}


def test_a_waived_release_follows_with_its_failed_verdict(loop: Loop) -> None:
    assert finding(verified(loop, 1), "gate.verdict").again == "fail, released"


def test_a_changed_evidence_document_is_found_out(loop: Loop) -> None:
    path = evidence_path(loop, 2, "gate-*.json")
    with changed(path, path.read_bytes().replace(b'"min_f1": 0.92', b'"min_f1": 0.82')):
        found = verified(loop)
    assert found.exit_code == 1
    assert "evidence gate does not have digest" in found.findings[0].message


def test_a_document_that_was_forged_with_its_digest_does_not_follow(loop: Loop, registry: Registry) -> None:
    honest = registry.evidence(loop.model, 1)["gate"]
    forged = json.loads(json.dumps(honest))
    f1 = next(claim for claim in forged["decision"]["claims"] if claim["name"] == "f1.lower_bound")
    f1 |= {"verdict": "pass", "value": 0.95}
    registry.attach_evidence(loop.model, 1, "gate", forged)
    try:
        found = verified(loop, 1)
    finally:
        registry.attach_evidence(loop.model, 1, "gate", honest)
    assert found.exit_code == 1
    told = finding(found, "gate.f1.lower_bound")
    assert (told.state, told.recorded) == (State.DIFFERS, "pass (0.95)")
    assert told.again.startswith("fail (0.")


def test_recorded_answers_that_were_changed_or_lost_are_named(loop: Loop) -> None:
    rows = evidence_path(loop, 2, "*/*.rows.parquet")
    with changed(rows, rows.read_bytes()[:-1] + b"x"):
        found = verified(loop)
    assert found.exit_code == 1
    assert "rows.parquet does not have the digest in its evidence: it was changed" in found.findings[0].message
    with gone(rows):
        found = verified(loop)
    assert found.exit_code == 2
    assert "rows.parquet is gone; restore " in found.findings[0].message


def test_a_changed_artefact_is_not_the_model_that_was_judged(loop: Loop, registry: Registry) -> None:
    with changed(registry.get(loop.model, 2).artefact / "model.onnx", b"another model"):
        found = verified(loop)
    assert found.exit_code == 1
    assert in_doubt(found, State.DIFFERS) == {"f1", "champion", "calibration"}
    assert "version 2 is not the model that was judged" in finding(found, "gate.f1.lower_bound").message
    assert finding(found, "gate.latency.percentile").state is State.FOLLOWS
    assert finding(found, "gate.leakage.entity").state is State.FOLLOWS


def test_a_lost_artefact_leaves_the_rest_verified_and_says_what_to_restore(loop: Loop, registry: Registry) -> None:
    folder = registry.get(loop.model, 2).artefact
    with gone(folder / "model.onnx"):
        found = verified(loop)
    assert found.exit_code == 2
    assert in_doubt(found, State.MISSING) == {"f1", "champion", "calibration", "verdict"}
    assert finding(found, "gate.f1.lower_bound").message == (
        f"version 2 lacks model.onnx in {folder}; restore the export"
    )


def test_a_lost_champion_leaves_only_the_comparison_open(loop: Loop, registry: Registry) -> None:
    with gone(registry.get(loop.model, 1).artefact / "manifest.json"):
        found = verified(loop)
    assert found.exit_code == 2
    assert in_doubt(found, State.MISSING) == {"champion", "verdict"}


def test_a_lost_snapshot_is_asked_for_and_a_changed_one_is_found(loop: Loop, registry: Registry) -> None:
    digest = registry.get(loop.model, 2).tags["snapshot_digest"]
    path = loop.home.snapshots / f"{digest}.parquet"
    with gone(loop.home.snapshots / f"{digest}.json"):
        found = verified(loop)
    assert found.exit_code == 2
    assert in_doubt(found, State.MISSING) == {"f1", "champion", "leakage", "calibration", "verdict"}
    assert f"restore {digest}.parquet and .json from a copy" in finding(found, "gate.f1.lower_bound").message
    assert finding(found, "gate.latency.percentile").state is State.FOLLOWS
    other = next(one for one in loop.home.snapshots.glob("*.parquet") if one != path)
    with changed(path, other.read_bytes()):
        found = verified(loop)
    assert found.exit_code == 1
    assert "the snapshot is not the one that was judged" in finding(found, "gate.leakage.exact").message


@pytest.mark.parametrize(
    ("part", "open_claims"),
    [("train", {"leakage", "verdict"}), ("test", {"f1", "champion", "leakage", "calibration", "verdict"})],
)
def test_rows_that_were_forgotten_leave_open_what_was_read_from_them(
    loop: Loop, registry: Registry, part: str, open_claims: set[str]
) -> None:
    digest = registry.get(loop.model, 2).tags["snapshot_digest"]
    rows, manifest = (loop.home.snapshots / f"{digest}.{suffix}" for suffix in ("parquet", "json"))
    with changed(rows, rows.read_bytes()), changed(manifest, manifest.read_bytes()):
        one = pl.read_parquet(rows).filter(pl.col("part") == part)["message_id"][0]
        forget_rows(loop.home.snapshots, digest, pl.col("message_id") == one, datetime(2026, 6, 1, tzinfo=UTC))
        found = verified(loop)
    assert found.exit_code == 2
    assert in_doubt(found, State.MISSING) == open_claims
    assert "changed by `mlops forget` on 2026-06-01, 1 rows" in finding(found, "gate.leakage.exact").message


def test_evidence_of_an_earlier_form_and_an_unknown_version_could_not_be_recomputed(
    loop: Loop, registry: Registry
) -> None:
    honest = registry.evidence(loop.model, 1)["gate"]
    registry.attach_evidence(loop.model, 1, "gate", {"decision": honest["decision"]})
    try:
        assert verified(loop, 1).exit_code == 2
    finally:
        registry.attach_evidence(loop.model, 1, "gate", honest)
    unknown = verified(loop, 9)
    assert unknown.exit_code == 2
    assert "no version 9 of m" in unknown.findings[0].message


def test_the_command_says_it_for_people_and_for_machines(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_HOME", str(loop.settings.home))
    shown = CliRunner().invoke(app, ["verify", "2", "--model", loop.model], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert "m 2: the evidence follows from its inputs" in shown.stdout
    told = CliRunner().invoke(app, ["verify", "9", "--model", loop.model, "--json"])
    assert told.exit_code == 2
    assert json.loads(told.stdout)["state"] == "missing"
