"""Versions of any MLflow flavour: on the same routes, in the same log, through the same canary as an export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime

import pytest

from mlops_assets import clock
from mlops_assets.declarations import SpecError
from mlops_assets.ops.explain import explain_prediction
from mlops_assets.ops.register import RegistrationRefused, next_step, register_model
from mlops_assets.ops.verify import verify_version
from mlops_assets.release.gate_inputs import IncompleteWaiver
from mlops_assets.resources.mlflow_store import connect
from mlops_assets.resources.registry import ArtefactMismatch, Registry, UnknownAddress, Version
from mlops_assets.settings import Settings
from tests.resources.foreign import log_pyfunc, log_sklearn
from tests.serving.factories import MODEL, write_artefact
from tests.serving.in_process import World, noon, serving
from tests.serving.load import Load
from tests.serving.world import Endpoint, new_endpoint, wait_until

pytestmark = pytest.mark.slow  # logs and loads MLflow models

NOON = datetime.fromisoformat(noon())
ALWAYS_OTHER = "return ['other'] * len(model_input)"
WAIVER = {"waiver_reason": "trained elsewhere", "waived_by": "ada"}


def log(settings: Settings, body: str = ALWAYS_OTHER) -> str:
    """A pyfunc that is registered as it is logged."""
    return log_pyfunc(settings, body, MODEL, registered_as=MODEL)


def released(settings: Settings, address: str) -> Version:
    """Registered with a waiver, by the door that `mlops register` is."""
    return register_model(settings, MODEL, address, **WAIVER)


def give_alias(settings: Settings, version: Version, alias: str) -> None:
    """What the graph does with a candidate."""
    Registry(settings).move_alias(MODEL, alias, version.version, expected=None, evidence_name="gate")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    clock.move(settings, NOON)
    return settings


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry(settings)


@pytest.mark.anyio
async def test_a_pyfunc_is_the_canary_beside_an_export_and_its_answers_are_logged(settings: Settings) -> None:
    world = await serving(settings)
    version = released(settings, log(settings))
    give_alias(settings, version, "canary")
    await world.settle()
    await world.settle()
    replies = await world.send(60)
    assert {(r["arm"], r["label"], r["model_version"]) for r in replies} == {
        ("stable", "refund", 1),
        ("canary", "other", 2),
    }
    segments = settings.model_home(MODEL).predictions.glob("*.ndjson")
    records = [json.loads(line) for segment in segments for line in segment.read_text().splitlines()]
    certain = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    assert [r["probabilities"] for r in records if r["version"] == 2] == [certain] * sum(
        r["arm"] == "canary" for r in replies
    )


@pytest.mark.anyio
async def test_a_production_version_whose_file_was_changed_is_refused_and_the_one_before_serves_on(
    settings: Settings, registry: Registry
) -> None:
    world = await serving(settings)
    version = released(settings, log(settings))
    (version.artefact / "requirements.txt").write_text("another\n")
    registry.move_alias(MODEL, "production", version.version, expected=1, evidence_name="gate")
    await world.settle()
    health = (await world.client.get("/health")).json()
    assert (health["status"], health["models"][MODEL]["stable"]["version"]) == ("degraded", 1)
    assert "version 2 is refused" in health["models"][MODEL]["error"]
    assert "was changed, added or taken away since it was registered" in health["models"][MODEL]["error"]
    assert (await world.predict("C-1")).json()["model_version"] == 1


@pytest.mark.anyio
async def test_a_version_that_nobody_recorded_the_digest_of_is_refused_with_the_remedy(
    settings: Settings, registry: Registry
) -> None:
    world = await serving(settings)
    log(settings)
    registry.attach_evidence(MODEL, 2, "gate", {})
    registry.move_alias(MODEL, "production", 2, expected=1, evidence_name="gate")
    await world.settle()
    error = (await world.client.get("/health")).json()["models"][MODEL]["error"]
    assert "no digest of its files was recorded: `mlops register" in error


@pytest.mark.anyio
async def test_a_pyfunc_that_fails_on_a_message_fails_that_message_alone(settings: Settings) -> None:
    body = "return ['praise' if 'boom' in text else 'other' for text in model_input['text']]"
    give_alias(settings, released(settings, log(settings, body)), "production")
    world = World(settings)
    await world.settle()
    assert (await world.predict("C-1")).json()["label"] == "other"
    failed = await world.predict("C-1", text="boom")
    assert (failed.status_code, failed.json()["detail"]) == (500, "version 1 could not answer this message")


def test_a_version_that_was_registered_as_it_was_logged_keeps_its_number(
    settings: Settings, registry: Registry
) -> None:
    address = log(settings)
    version = register_model(settings, MODEL, address, waiver_reason="", waived_by="")
    assert (version.version, version.artefact_format) == (1, "mlflow")
    assert (version.artefact / "MLmodel").is_file()
    assert version.aliases == ()
    again = released(settings, address)
    assert (again.version, again.artefact_digest, again.aliases) == (1, version.artefact_digest, ("candidate",))
    assert [known.version for known in registry.versions(MODEL)] == [1]


def test_a_logged_model_becomes_a_version_once(settings: Settings, registry: Registry) -> None:
    address = log_pyfunc(settings, ALWAYS_OTHER, MODEL)
    run = connect(settings).get_logged_model(address.rpartition("/")[2]).source_run_id
    assert [released(settings, named).version for named in (address, address, f"runs:/{run}/theirs")] == [1, 1, 1]
    evidence = registry.evidence(MODEL, 1)["gate"]["decision"]
    assert (evidence["verdict"], evidence["released"], evidence["waiver"]["by"]) == ("insufficient_data", True, "ada")


def test_registering_what_is_in_production_again_says_so_and_takes_no_candidate_out_of_the_queue(
    settings: Settings, registry: Registry
) -> None:
    address = log(settings)
    assert next_step(register_model(settings, MODEL, address, waiver_reason="", waived_by="")).startswith("it needs")
    first = released(settings, address)
    assert next_step(first) == "the rollout sensor takes it from there"
    give_alias(settings, first, "production")
    registry.drop_alias(MODEL, "candidate", expected=1)
    released(settings, log(settings))
    assert next_step(released(settings, address)) == "it is in production"
    assert registry.get(MODEL, 2).aliases == ("candidate",)


def test_a_version_that_was_logged_without_a_run_keeps_its_evidence_all_the_same(
    settings: Settings, registry: Registry
) -> None:
    connect(settings).create_registered_model(MODEL)
    logged = connect(settings).get_logged_model(log_pyfunc(settings, ALWAYS_OTHER, MODEL).rpartition("/")[2])
    connect(settings).create_model_version(MODEL, logged.artifact_location)
    assert registry.get(MODEL, 1).run_id == ""
    assert released(settings, f"models:/{MODEL}/1").aliases == ("candidate",)
    assert registry.evidence(MODEL, 1)["gate"]["judged"] is False


def test_a_version_whose_files_were_changed_is_not_registered_anew(settings: Settings, registry: Registry) -> None:
    address = log(settings)
    version = released(settings, address)
    ran = settings.home / "ran"
    (version.artefact / "written.py").write_text(f"open({str(ran)!r}, 'w')")
    with pytest.raises(RegistrationRefused, match="was changed, added or taken away since it was registered"):
        released(settings, address)
    assert not ran.exists()
    logged = registry.logged_model(MODEL, address)
    with pytest.raises(ArtefactMismatch, match="they were changed since"):
        registry.register_logged(MODEL, logged, "0" * 64, {})


def test_what_cannot_be_served_is_not_registered(settings: Settings, registry: Registry) -> None:
    address = log_pyfunc(settings, "return [1] * len(model_input)", MODEL)
    with pytest.raises(RegistrationRefused, match="cannot be served: an array of int64 without names"):
        released(settings, address)
    assert registry.versions(MODEL) == []
    with pytest.raises(UnknownAddress, match=r"models:/m-0 names no model .* give models:/NAME/VERSION"):
        released(settings, "models:/m-0")
    with pytest.raises(UnknownAddress, match="is a version of another model than intent_classifier"):
        released(settings, "models:/somebody_else/1")
    with pytest.raises(IncompleteWaiver, match="both its reason"):
        register_model(settings, MODEL, address, waiver_reason="because", waived_by="")
    with pytest.raises(SpecError, match="no model unheard_of is declared"):
        register_model(settings, "unheard_of", address, waiver_reason="", waived_by="")


def test_a_version_that_a_canary_sent_back_is_not_offered_by_registering_it_again(
    settings: Settings, registry: Registry
) -> None:
    address = log_pyfunc(settings, ALWAYS_OTHER, MODEL)
    version = released(settings, address).version
    registry.set_tags(MODEL, version, {"rollout": "failed"})
    with pytest.raises(RegistrationRefused, match=r"was sent back .failed.: offer it again with `mlops canary start"):
        released(settings, address)


@pytest.mark.anyio
async def test_an_export_is_no_stranger(settings: Settings) -> None:
    await serving(settings)
    with pytest.raises(RegistrationRefused, match="version 1 of intent_classifier is an export"):
        released(settings, f"models:/{MODEL}/1")


@pytest.mark.anyio
async def test_its_predictions_are_explained_and_its_release_is_told_to_rest_on_a_waiver(settings: Settings) -> None:
    give_alias(settings, released(settings, log(settings)), "production")
    world = World(settings)
    await world.settle()
    (reply,) = await world.send(1)
    found = explain_prediction(settings, reply["prediction_id"])
    assert found["version"]["version"] == 1
    assert (found["origin"]["dagster_run"], found["origin"]["spec"]) == (None, None), "no page that is not there"
    assert found["evidence: gate"]["decision"]["waiver"] == {"by": "ada", "reason": "trained elsewhere"}
    verified = verify_version(settings, MODEL, 1)
    assert verified.exit_code == 2
    assert "waived by ada: trained elsewhere" in verified.findings[0].message


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A scikit-learn pipeline is in production before the endpoint starts."""
    endpoint = new_endpoint(tmp_path_factory.mktemp("endpoint"))
    clock.move(endpoint.settings, NOON)
    version = released(endpoint.settings, log_sklearn(endpoint.settings, MODEL))
    give_alias(endpoint.settings, version, "production")
    with endpoint.running():
        yield endpoint


@pytest.mark.timeout(600)
def test_scikit_learn_in_production_and_a_written_pyfunc_as_its_canary_then_an_export(endpoint: Endpoint) -> None:
    settings, registry = endpoint.settings, endpoint.registry
    with Load(endpoint, gap_seconds=0.0, threads=2) as load:
        wait_until(lambda: len(load.acknowledged) > 20)
        give_alias(settings, released(settings, log(settings)), "canary")
        wait_until(lambda: endpoint.rollout()["phase"] == "promoting", 180)
        assert endpoint.admin(f"/models/{MODEL}/rollout/seal", {"version": 2}).json()["answer"] == "sealed"
        registry.move_alias(MODEL, "production", 2, expected=1, evidence_name="rollout")
        wait_until(lambda: endpoint.health()["models"][MODEL]["stable"]["version"] == 2, 60)
        answered = load.arms["stable"]
        wait_until(lambda: load.arms["stable"] > answered + 1)  # one may have been on its way
    assert (set(load.statuses), load.broken, set(load.versions)) == ({200}, [], {1, 2})
    assert load.arms["canary"] > 20

    records = {record["prediction_id"]: record for record in endpoint.predictions()}
    assert set(load.acknowledged) <= set(records)
    said = {(record["version"], record["arm"], record["label"]) for record in records.values()}
    assert {(1, "stable", "order_status"), (2, "canary", "other"), (2, "stable", "other")} <= said
    by_sklearn = next(record for record in records.values() if record["version"] == 1)
    assert sum(by_sklearn["probabilities"]) == pytest.approx(1.0, abs=1e-5)

    batch = endpoint.client.post("/predict/batch", json={"instances": [{"text": "hello"}] * 2}).json()
    assert [reply["label"] for reply in batch["predictions"]] == ["other", "other"]
    assert endpoint.client.get(f"/v2/models/{MODEL}").json()["platform"] == "mlflow_pyfunc"
    version = endpoint.publish(lambda folder: write_artefact(folder, "refund"), "canary").version
    wait_until(lambda: (endpoint.health()["models"][MODEL]["canary"] or {}).get("version") == version, 60)
