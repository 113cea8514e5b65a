"""The gate on real artefacts, rows and registry: each outcome is stated, and only a pass or a waiver registers."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from mlops_assets.data.split import TRAIN
from mlops_assets.data.tables import write_table
from mlops_assets.lineage.loop import Loop
from mlops_assets.lineage.measures import feature_matrix, features_path, read_features
from mlops_assets.lineage.release import next_step
from mlops_assets.lineage.signals import traffic_since, under_way
from mlops_assets.ops.verify import verify_version
from mlops_assets.release.replay import State
from mlops_assets.resources.feast import FeatureStoreDoor
from mlops_assets.resources.mlflow_store import connect
from mlops_assets.spec import DEFAULT_LABELS
from mlops_assets.storage import read_json, write_json
from mlops_assets.training.artefact import artefact_digest
from tests.lineage.judged import in_attempts, judge, snapshot, submission, write_model
from tests.lineage.world import checks, definitions, metadata
from tests.resources.foreign import log_pyfunc, record

pytestmark = pytest.mark.slow  # MLflow and Feast take seconds to import


@pytest.fixture
def loop(registered: Loop) -> Loop:
    """A model with 2,500 labelled messages, an empty registry and a feature store."""
    FeatureStoreDoor(registered.settings).apply()
    snapshot(registered, 2_500)
    return registered


def promote(loop: Loop, version: int = 1) -> None:
    registry = loop.registry()
    before = registry.by_alias(loop.model, "production")
    registry.attach_evidence(loop.model, version, "rollout", {"outcome": "succeeded", "reason": "test"})
    registry.move_alias(
        loop.model, "production", version, expected=before.version if before else None, evidence_name="rollout"
    )


def evidence(loop: Loop) -> dict:
    newest = max((loop.home.evidence / "gate").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return read_json(newest)


def with_labels(loop: Loop, *labels: str) -> Loop:
    """The same model, declared with other labels."""
    data = loop.spec.data.model_copy(update={"labels": labels})
    return Loop(loop.spec.model_copy(update={"data": data}), loop.settings)


def failure(result: dg.ExecuteInProcessResult) -> str:
    """Why the first step that failed did."""
    return next(e.event_specific_data.error_display_string for e in result.all_events if e.is_step_failure)


def test_the_first_model_is_registered_with_all_that_its_decision_rests_on(
    loop: Loop, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    result = judge(loop, instance, write_model(tmp_path / "export"))
    assert result.success
    assert checks(result)["gate"] == (True, "passed all 11 claims")
    (version,) = loop.registry().versions(loop.model)
    kept = loop.registry().evidence(loop.model, version.version)["gate"]
    claims = {claim["name"]: claim["message"] for claim in kept["decision"]["claims"]}
    assert claims["champion"] == "waived: first model, the registry holds no production version"
    assert kept["artefact_digest"] == version.artefact_digest
    assert kept["spec"]["gate"]["min_f1"] == 0.92
    assert kept["inputs"]["champion"]["kind"] == "FirstModel"
    assert len(kept["inputs"]["latencies_ms"]) == 600
    for name, digest in kept["files"].items():
        assert loop.registry().evidence_file(loop.model, version.version, name, digest).exists()
    shown = metadata(result, loop, "evaluation")
    assert shown["rows_demanded"] == "the 500 test rows suffice for a model with about 29 errors or fewer"


def test_a_registration_that_is_repeated_after_its_release_offers_nothing_again(
    loop: Loop, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert judge(loop, instance, write_model(tmp_path / "first")).success
    jobs = definitions(loop)
    assert jobs.resolve_job_def(loop.name("promote")).execute_in_process(instance=instance).success
    again = jobs.resolve_job_def(loop.name("submit"))
    assert again.execute_in_process(instance=instance, asset_selection=[loop.key("registered_version")]).success
    assert {alias for version in loop.registry().versions(loop.model) for alias in version.aliases} == {"production"}
    assert next_step(loop, instance) == "no candidate is waiting"
    assert under_way(loop, instance) is None


def test_the_files_of_earlier_candidates_go_after_a_week(loop: Loop, instance: dg.DagsterInstance) -> None:
    mine = write_model(loop.home.exports / "mine")
    for name, days in (("old", 8), ("other", 1)):
        for folder in (loop.home.exports / name, loop.home.candidates / name):
            write_json(folder / "manifest.json", {})
            os.utime(folder, (time.time() - days * 86_400,) * 2)
    os.utime(mine, (0, 0))

    result = judge(loop, instance, mine, trained=True)

    assert result.success
    judged = Path(metadata(result, loop, "candidate")["artefact"])
    assert set(loop.home.exports.iterdir()) == {mine, loop.home.exports / "other"}
    assert set(loop.home.candidates.iterdir()) == {judged, loop.home.candidates / "other"}


def test_a_challenger_that_forgot_a_label_is_held_and_only_a_waiver_lets_it_on(
    loop: Loop, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert judge(loop, instance, write_model(tmp_path / "first")).success
    promote(loop)
    snapshot(loop, 4_000)
    worse = write_model(tmp_path / "worse", {"refund": "query"})
    held = judge(loop, instance, worse)
    assert not held.success
    passed, message = checks(held)["gate"]
    assert not passed
    assert message.startswith("fail: f1.lower_bound: ")
    assert "champion.label.refund: F1 0.0000 against 1.0000 of version 1" in message
    assert len(loop.registry().versions(loop.model)) == 1
    assert judge(loop, instance, worse, waiver="drill").success
    assert loop.registry().get(loop.model, 2).tags["gate"] == "waived"


def test_what_is_trained_for_a_shift_is_compared_with_the_traffic_since_and_so_is_what_comes_after_it(
    loop: Loop, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert judge(loop, instance, write_model(tmp_path / "first")).success
    promote(loop)
    held_out = snapshot(loop, 3_600).read().filter(pl.col("part") != TRAIN)["event_timestamp"]
    began = held_out[-1].replace(hour=0, minute=0) - timedelta(days=5)
    for decision, day in (("shift", f"{began:%Y-%m-%d}"), ("age", None)):
        write_json(loop.home.evidence / "retrain" / f"{decision}.json", {"shift_began": day})
    assert traffic_since(loop, "shift") == began
    assert traffic_since(loop, "age") is None
    submitted = judge(loop, instance, write_model(tmp_path / "elsewhere"), since=began)  # it may never have seen it
    days = timedelta(days=loop.spec.drift.reference_days)
    assert metadata(submitted, loop, "candidate")["reference_rows"] == (held_out >= held_out[-1] - days).sum()
    trained = judge(loop, instance, write_model(tmp_path / "next"), since=began, trained=True)
    assert metadata(trained, loop, "candidate")["reference_rows"] == (held_out >= began).sum()
    promote(loop, 3)
    assert traffic_since(loop, "age") == traffic_since(loop, "") == began


def test_what_was_put_before_the_gate_once_may_be_submitted_from_where_it_was_kept(
    loop: Loop, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    kept = metadata(judge(loop, instance, write_model(tmp_path / "first")), loop, "candidate")["artefact"]
    link = tmp_path / "link"
    link.symlink_to(kept)
    for folder in (Path(kept), link):
        assert judge(loop, instance, folder).success


def test_a_submission_cut_short_goes_on_with_its_own_model_whatever_was_put_before_the_gate_meanwhile(
    loop: Loop, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert judge(loop, instance, write_model(tmp_path / "champion")).success
    promote(loop)
    waived = write_model(tmp_path / "waived", {"refund": "query"})
    rest = ("evaluation", "registered_version")
    submitted = in_attempts(loop, instance, submission(str(waived), "a drill"), ("candidate",), rest)
    next(submitted)
    assert not judge(loop, instance, write_model(tmp_path / "beside", {"complaint": "other"})).success
    next(submitted)
    newest = loop.registry().versions(loop.model)[0]
    assert (newest.artefact_digest, newest.tags["gate"]) == (artefact_digest(waived), "waived")


def test_a_champion_that_no_longer_loads_is_an_error_and_registers_nothing(
    loop: Loop, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert judge(loop, instance, write_model(tmp_path / "first")).success
    promote(loop)
    (loop.registry().get(loop.model, 1).artefact / "model.onnx").write_bytes(b"damaged")
    snapshot(loop, 4_000)
    result = judge(loop, instance, write_model(tmp_path / "next", {"refund": "query"}))
    assert not result.success
    passed, message = checks(result)["gate"]
    assert not passed
    assert message.startswith("error: ")
    assert "the champion could not be asked" in message
    assert evidence(loop)["inputs"]["champion"]["kind"] == "ChampionUnavailable"
    assert len(loop.registry().versions(loop.model)) == 1


def test_a_champion_of_another_make_is_asked_like_any(loop: Loop, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    by_first_word = """
        said = [text.split()[0] for text in model_input['text']]
        return [word if word in LABELS else 'other' for word in said]"""
    registry = loop.registry()
    record(registry, loop.model, log_pyfunc(loop.settings, by_first_word, loop.model))
    promote(loop)
    held = judge(loop, instance, write_model(tmp_path / "worse", {"refund": "query"}))
    assert "champion.label.refund: F1 0.0000 against 1.0000 of version 1" in checks(held)["gate"][1]
    assert judge(loop, instance, write_model(tmp_path / "equal"), waiver="rows were looked at before").success
    verified = {finding.name: finding.state for finding in verify_version(loop.settings, loop.model, 2).findings}
    assert verified["gate.champion.overall"] is State.FOLLOWS


def test_a_champion_that_somebody_made_one_by_hand_is_an_error_that_says_what_to_do(
    loop: Loop, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    log_pyfunc(loop.settings, "return pd.DataFrame()", loop.model, registered_as=loop.model)
    connect(loop.settings).set_registered_model_alias(loop.model, "production", "1")
    passed, message = checks(judge(loop, instance, write_model(tmp_path / "export")))["gate"]
    assert not passed
    assert "error: champion: the champion could not be asked: no digest of its files was recorded" in message
    assert "`mlops register models:/NAME/VERSION` does that" in message


def test_a_champion_that_does_not_know_a_new_label_is_asked_all_the_same(
    loop: Loop, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert judge(loop, instance, write_model(tmp_path / "first")).success
    promote(loop)
    held = judge(
        with_labels(loop, *DEFAULT_LABELS, "billing"), instance, write_model(tmp_path / "worse", {"refund": "query"})
    )
    message = checks(held)["gate"][1]
    assert "champion.label.refund: F1 0.0000 against 1.0000 of version 1" in message
    assert "champion.label.billing: no test row has the label billing" in message


def test_a_model_with_what_is_not_declared_is_not_judged(
    loop: Loop, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """The endpoint would answer with its label, for which it was not judged."""
    folder = write_model(tmp_path / "export")
    assert "the model has other, which data.labels does not declare" in failure(
        judge(with_labels(loop, *DEFAULT_LABELS[:-1]), instance, folder)
    )
    fewer = loop.spec.features.model_copy(update={"defaults": {"orders_90d": 0.0}})
    told = Loop(loop.spec.model_copy(update={"features": fewer}), loop.settings)
    assert "tenure_days, which features.defaults does not declare (it has orders_90d)" in failure(
        judge(told, instance, folder)
    )


def test_a_feature_that_tells_the_label_is_named_until_it_is_vouched_for(
    loop: Loop, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    made = next(loop.home.snapshots.glob("*.parquet"))
    refunded = pl.read_parquet(made).select("message_id", pl.col("label").eq("refund").alias("refunded"))
    features = read_features(loop.home, made.stem).join(refunded, on="message_id")
    told = features.with_columns(return_share_90d=pl.col("refunded").cast(pl.Float64)).drop("refunded")
    write_table(features_path(loop.home, made.stem), told)
    passed, message = checks(judge(loop, instance, write_model(tmp_path / "export")))["gate"]
    assert not passed
    assert "leakage.column: suspects, which tell the label by themselves" in message
    assert "return_share_90d V = 0.999" in message
    vouched = loop.spec.features.model_copy(update={"known_at_event": ("return_share_90d",)})
    trusting = Loop(loop.spec.model_copy(update={"features": vouched}), loop.settings)
    assert judge(trusting, instance, tmp_path / "export").success


def test_a_feature_from_after_its_message_fails_and_an_unrecorded_time_is_an_error(
    loop: Loop, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    made = next(loop.home.snapshots.glob("*.parquet"))
    path, features = features_path(loop.home, made.stem), read_features(loop.home, made.stem)
    first = pl.col("message_id") == "m0"
    late = pl.when(first).then(pl.col("features_known_at") + pl.duration(days=1)).otherwise("features_known_at")
    write_table(path, features.with_columns(late.alias("features_known_at")))
    folder = write_model(tmp_path / "export")
    _, message = checks(judge(loop, instance, folder))["gate"]
    assert message == "fail: leakage.time.feature: 1 rows have a feature value from after their message; none may"
    write_table(path, features.drop("features_known_at"))
    _, message = checks(judge(loop, instance, folder))["gate"]
    assert message == "error: leakage.time.feature: time.feature leakage could not be determined"


def test_a_test_set_that_served_before_is_counted_and_held_to_more(
    loop: Loop, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    for number, label in enumerate(("refund", "query", "other")):
        judge(loop, instance, write_model(tmp_path / f"bad{number}", {label: "greeting"}))
    assert judge(loop, instance, write_model(tmp_path / "good")).success
    kept = evidence(loop)
    assert kept["inputs"]["earlier_uses"] == len(kept["earlier_decisions"]) == 3
    f1 = kept["decision"]["claims"][0]["message"]
    assert "98.8% confidence (instead of 95%: 3 decisions used this test set before)" in f1


def test_too_few_rows_are_said_before_they_fail(registered: Loop, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    snapshot(registered, 1_000)
    result = judge(registered, instance, write_model(tmp_path / "export"))
    assert not result.success
    assert "f1.lower_bound has 200 and needs 300" in metadata(result, registered, "evaluation")["rows_demanded"]
    assert checks(result)["gate"][1].startswith("insufficient_data: f1.lower_bound: 200 test rows; at least 300")


def test_features_that_were_not_joined_are_asked_for(loop: Loop, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    made = next(loop.home.snapshots.glob("*.parquet"))
    features_path(loop.home, made.stem).unlink()
    result = judge(loop, instance, write_model(tmp_path / "export"))
    assert "materialize training_features" in failure(result)


@pytest.mark.parametrize(("names", "expected"), [(("a", "b"), [[1.0, 0.5], [np.nan, 2.0]]), ((), [[], []])])
def test_rows_have_their_features_in_the_models_order_and_a_model_may_have_none(
    names: tuple[str, ...], expected: list[list[float]]
) -> None:
    rows = pl.DataFrame({"b": [0.5, 2.0], "text": ["hello", "bye"], "a": [1, None]})
    np.testing.assert_array_equal(feature_matrix(names, rows), np.array(expected, np.float32))
