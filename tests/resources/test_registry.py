"""The registry is the truth about releases: nothing moves without evidence, nor from where it was not expected."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlops_assets.resources.mlflow_store import connect
from mlops_assets.resources.registry import (
    SINCE_TAG,
    AliasConflict,
    ArtefactMismatch,
    EvidenceCorrupt,
    MissingEvidence,
    Registry,
    RegistryNotPrepared,
    UnknownVersion,
    Version,
    prepare,
)
from mlops_assets.settings import Settings
from mlops_assets.storage import digest_json
from tests.resources.conftest import Exporter

pytestmark = pytest.mark.slow  # real registries

MODEL = "intent_classifier"


def registered(registry: Registry, exporter: Exporter, temperature: float = 1.0) -> Version:
    folder, digest = exporter.export(temperature)
    return registry.register(MODEL, None, folder, digest, f"temperature {temperature}", {"gate": "pass"})


def test_a_registered_version_carries_its_artefact_digest_description_and_tags(
    registry: Registry, exporter: Exporter, settings: Settings
) -> None:
    version = registered(registry, exporter)
    assert version.artefact.is_relative_to(settings.artifact_root / MODEL)
    assert (version.model, version.version, version.description) == (MODEL, 1, "temperature 1.0")
    assert (version.artefact / "model.onnx").read_bytes() == b"weights"
    assert version.tags["gate"] == "pass"
    assert version == registry.get(MODEL, 1)


def test_registering_again_returns_the_version_there_is(registry: Registry, exporter: Exporter) -> None:
    first = registered(registry, exporter)
    assert registered(registry, exporter).version == first.version
    assert registered(registry, exporter, temperature=2.0).version == first.version + 1
    assert [v.version for v in registry.versions(MODEL)] == [2, 1]


def test_a_folder_that_is_not_what_it_is_said_to_be_is_refused(registry: Registry, exporter: Exporter) -> None:
    folder, _ = exporter.export()
    with pytest.raises(ArtefactMismatch):
        registry.register(MODEL, None, folder, "0" * 64, "", {})
    assert registry.versions(MODEL) == []


def test_an_alias_moves_only_with_evidence(registry: Registry, exporter: Exporter) -> None:
    registered(registry, exporter)
    with pytest.raises(MissingEvidence, match="no evidence 'gate'"):
        registry.move_alias(MODEL, "production", 1, expected=None, evidence_name="gate")
    registry.attach_evidence(MODEL, 1, "gate", {"f1": 0.95})
    moved = registry.move_alias(MODEL, "production", 1, expected=None, evidence_name="gate")
    assert moved.aliases == ("production",)
    assert registry.by_alias(MODEL, "production") == moved
    assert registry.versions(MODEL) == [moved]


def test_a_version_that_was_given_the_alias_by_hand_is_in_production_since_it_was_registered(
    registry: Registry, exporter: Exporter
) -> None:
    assert registry.production(MODEL) is None
    registered(registry, exporter)
    connect(registry.settings).set_registered_model_alias(MODEL, "production", "1")
    found = registry.production(MODEL)
    assert found is not None
    assert found.production_since == found.trained_until == found.created_at
    registry.set_tags(MODEL, 1, {SINCE_TAG: "2026-03-01T00:00:00+00:00"})
    assert registry.get(MODEL, 1).production_since == datetime(2026, 3, 1, tzinfo=UTC)


def test_an_alias_moves_only_from_where_it_was_expected(registry: Registry, exporter: Exporter) -> None:
    for temperature in (1.0, 2.0, 3.0):
        version = registered(registry, exporter, temperature).version
        registry.attach_evidence(MODEL, version, "gate", {"f1": 0.95})
    registry.move_alias(MODEL, "production", 1, expected=None, evidence_name="gate")
    registry.move_alias(MODEL, "production", 2, expected=1, evidence_name="gate")
    with pytest.raises(AliasConflict, match="is at 2, expected 1"):
        registry.move_alias(MODEL, "production", 3, expected=1, evidence_name="gate")
    with pytest.raises(AliasConflict):
        registry.drop_alias(MODEL, "production", expected=1)
    registry.move_alias(MODEL, "production", 2, expected=1, evidence_name="gate")  # a repeated step
    registry.drop_alias(MODEL, "production", expected=2)
    registry.drop_alias(MODEL, "production", expected=2)
    assert registry.by_alias(MODEL, "production") is None


def test_evidence_comes_back_as_attached_and_the_newest_counts(registry: Registry, exporter: Exporter) -> None:
    registered(registry, exporter)
    first = registry.attach_evidence(MODEL, 1, "rollout", {"verdict": "inconclusive"})
    again = registry.attach_evidence(MODEL, 1, "rollout", {"verdict": "inconclusive"})
    registry.attach_evidence(MODEL, 1, "gate", {"f1": 0.95})
    second = registry.attach_evidence(MODEL, 1, "rollout", {"verdict": "promote"})
    assert first == again == digest_json({"verdict": "inconclusive"})
    assert registry.get(MODEL, 1).tags["evidence.rollout"] == second
    assert registry.evidence(MODEL, 1) == {"rollout": {"verdict": "promote"}, "gate": {"f1": 0.95}}


def test_changed_evidence_is_found_out(registry: Registry, exporter: Exporter, settings: Settings) -> None:
    registered(registry, exporter)
    registry.attach_evidence(MODEL, 1, "gate", {"f1": 0.91})
    (document,) = settings.artifact_root.rglob("gate-*.json")
    document.write_text(document.read_text().replace("0.91", "0.99"))
    with pytest.raises(EvidenceCorrupt, match="gate"):
        registry.evidence(MODEL, 1)


def test_a_file_beside_the_evidence_comes_back_by_its_digest(
    registry: Registry, exporter: Exporter, tmp_path: Path
) -> None:
    registered(registry, exporter)
    rows = tmp_path / "rows.parquet"
    rows.write_bytes(b"answers")
    digest = registry.attach_file(MODEL, 1, rows)
    assert registry.attach_file(MODEL, 1, rows) == digest
    assert registry.evidence_file(MODEL, 1, "rows.parquet", digest).read_bytes() == b"answers"


def test_a_file_that_was_changed_or_lost_is_told_apart(registry: Registry, exporter: Exporter, tmp_path: Path) -> None:
    registered(registry, exporter)
    rows = tmp_path / "rows.parquet"
    rows.write_bytes(b"answers")
    digest = registry.attach_file(MODEL, 1, rows)
    kept = registry.evidence_file(MODEL, 1, "rows.parquet", digest)
    kept.write_bytes(b"others")
    with pytest.raises(EvidenceCorrupt, match="it was changed"):
        registry.evidence_file(MODEL, 1, "rows.parquet", digest)
    kept.unlink()
    with pytest.raises(MissingEvidence, match=r"rows\.parquet is gone; restore "):
        registry.evidence_file(MODEL, 1, "rows.parquet", digest)


def test_what_is_not_there_is_said_to_be_not_there(registry: Registry, exporter: Exporter) -> None:
    assert registry.by_alias(MODEL, "production") is None
    assert registry.versions(MODEL) == []
    registered(registry, exporter)
    assert registry.by_alias(MODEL, "canary") is None
    for call in (registry.get, registry.evidence):
        with pytest.raises(UnknownVersion, match="no version 7 of intent_classifier"):
            call(MODEL, 7)


def test_tags_are_added_to_those_there_are(registry: Registry, exporter: Exporter) -> None:
    registered(registry, exporter)
    registry.set_tags(MODEL, 1, {"rollout": "succeeded", "archived": "true"})
    tags = registry.get(MODEL, 1).tags
    assert (tags["gate"], tags["rollout"], tags["archived"]) == ("pass", "succeeded", "true")


def test_a_store_that_was_never_prepared_is_named(tmp_path: Path) -> None:
    with pytest.raises(RegistryNotPrepared, match="mlops up"):
        Registry(Settings(home=tmp_path, _env_file=None)).by_alias(MODEL, "production")


def test_preparing_again_keeps_everything(registry: Registry, exporter: Exporter, settings: Settings) -> None:
    registered(registry, exporter)
    prepare(settings)
    assert registry.get(MODEL, 1).version == 1


def test_polling_is_cheap(registry: Registry, exporter: Exporter) -> None:
    registered(registry, exporter)
    registry.attach_evidence(MODEL, 1, "gate", {})
    registry.move_alias(MODEL, "production", 1, expected=None, evidence_name="gate")
    started = time.perf_counter()
    for _ in range(20):
        registry.by_alias(MODEL, "production")
    assert (time.perf_counter() - started) / 20 < 0.05  # about 3 ms on an idle machine


def test_a_remote_artefact_that_several_ask_for_at_once_is_fetched_once(
    registry: Registry, exporter: Exporter, settings: Settings
) -> None:
    folder, digest = exporter.export()
    version = registered(registry, exporter)
    connect(settings).log_artifacts(version.run_id, str(folder), f"remote/{version.tags['artefact_path']}")
    registry.set_tags(MODEL, 1, {"artefact_location": f"runs:/{version.run_id}/remote"})  # an address that is no path
    together = threading.Barrier(4)

    def fetched() -> Path:
        together.wait()
        return Registry(settings).get(MODEL, 1).artefact

    with ThreadPoolExecutor(4) as pool:
        (found,) = {asked.result() for asked in [pool.submit(fetched) for _ in range(4)]}
    assert (found / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()
    assert [path.name for path in found.parent.iterdir() if path.is_dir()] == [digest]


_WRITER = """
import sys
from pathlib import Path
from mlops_assets.resources.registry import AliasConflict, Registry
from mlops_assets.settings import Settings
registry = Registry(Settings(home=Path(sys.argv[1]), _env_file=None))
won = 0
for turn in range(10):
    registry.attach_evidence("intent_classifier", 1, sys.argv[2], {"turn": turn})
    try:
        registry.move_alias("intent_classifier", f"turn{turn}", int(sys.argv[2]), expected=None, evidence_name="gate")
        won += 1
    except AliasConflict:
        continue
print(won)
"""


@pytest.mark.slow
def test_two_processes_write_at_once_and_each_alias_has_one_winner(
    registry: Registry, exporter: Exporter, settings: Settings
) -> None:
    for temperature in (1.0, 2.0):
        version = registered(registry, exporter, temperature).version
        registry.attach_evidence(MODEL, version, "gate", {})
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(settings.home), who], stdout=subprocess.PIPE, text=True)
        for who in ("1", "2")
    ]
    wins = [int(writer.communicate(timeout=120)[0]) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert sum(wins) == 10
    assert registry.evidence(MODEL, 1)["1"] == {"turn": 9}
