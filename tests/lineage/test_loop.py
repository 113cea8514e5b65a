"""One step at a time: what was done, is being done, or cannot be done is not asked for again."""

from datetime import UTC, datetime

import dagster as dg
import pytest

from mlops_assets.lineage.loop import STEP_TAG, Loop, check_result, range_tags
from mlops_assets.verdict import Verdict

FAILED, SUCCEEDED, STARTED = (dg.DagsterRunStatus[name] for name in ("FAILURE", "SUCCESS", "STARTED"))


@dg.job
def work() -> None:
    """Any job."""


def ran(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, step: str = "m:promote-v2") -> str:
    return instance.create_run_for_job(work, status=status, tags={STEP_TAG: step}).run_id


def test_a_step_that_was_never_tried_is_asked_for(loop: Loop, instance: dg.DagsterInstance) -> None:
    request = loop.step(instance, "promote-v2", tags={"day": "1"}, job_name="m_promote")
    assert isinstance(request, dg.RunRequest)
    assert request.run_key == "m:promote-v2:0"
    assert request.tags == {STEP_TAG: "m:promote-v2", "day": "1"}
    assert request.job_name == "m_promote"


@pytest.mark.parametrize("status", ["NOT_STARTED", "STARTING", "STARTED", "CANCELING"])
def test_a_step_in_flight_is_waited_for(loop: Loop, instance: dg.DagsterInstance, status: str) -> None:
    ran(instance, FAILED)
    run = ran(instance, dg.DagsterRunStatus[status])
    skipped = loop.step(instance, "promote-v2")
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == f"promote-v2: run {run[:8]} is in flight"


def test_a_step_that_was_done_is_not_done_again(loop: Loop, instance: dg.DagsterInstance) -> None:
    run = ran(instance, SUCCEEDED)
    skipped = loop.step(instance, "promote-v2")
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == f"promote-v2: done by run {run[:8]}"


@pytest.mark.parametrize("failures", [1, 2])
def test_a_step_that_failed_is_tried_again_under_a_run_key_of_its_own(
    loop: Loop, instance: dg.DagsterInstance, failures: int
) -> None:
    for _ in range(failures):
        ran(instance, FAILED)
    request = loop.step(instance, "promote-v2")
    assert isinstance(request, dg.RunRequest)
    assert request.run_key == f"m:promote-v2:{failures}"


def test_a_step_that_failed_three_times_is_left_to_people(loop: Loop, instance: dg.DagsterInstance) -> None:
    for _ in range(3):
        ran(instance, FAILED)
    skipped = loop.step(instance, "promote-v2")
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == "promote-v2: failed 3 times; mend the cause, then launch it by hand"


def test_other_steps_and_other_models_do_not_count(loop: Loop, instance: dg.DagsterInstance) -> None:
    ran(instance, STARTED, "m:promote-v1")
    ran(instance, STARTED, "n:promote-v2")
    assert isinstance(loop.step(instance, "promote-v2"), dg.RunRequest)


def test_a_job_waits_for_its_run_that_has_not_ended(loop: Loop, instance: dg.DagsterInstance) -> None:
    @dg.job(name="m_judge_days")
    def judge_days() -> None:
        """The job that is asked for."""

    assert loop.in_flight(instance, "judge_days") is None
    instance.create_run_for_job(judge_days, status=SUCCEEDED)
    assert loop.in_flight(instance, "judge_days") is None
    run = instance.create_run_for_job(judge_days, status=STARTED)
    waits = loop.in_flight(instance, "judge_days")
    assert waits is not None
    assert waits.skip_message == f"judge_days: run {run.run_id[:8]} is in flight"


def test_a_run_over_days_names_the_first_and_the_last() -> None:
    assert range_tags(datetime(2026, 3, 1, 23, tzinfo=UTC), datetime(2026, 3, 4, tzinfo=UTC)) == {
        "dagster/asset_partition_range_start": "2026-03-01",
        "dagster/asset_partition_range_end": "2026-03-04",
    }


@pytest.mark.parametrize("verdict", list(Verdict))
def test_only_pass_passes_and_every_verdict_keeps_its_name(verdict: Verdict) -> None:
    result = check_result("quiet", verdict, "because")
    assert result.passed == (verdict is Verdict.PASS)
    assert result.metadata["verdict"].value == verdict.value
    assert result.description == "because"


def test_what_was_not_materialized_yet_is_a_clear_failure(loop: Loop, instance: dg.DagsterInstance) -> None:
    assert loop.latest(instance, "candidate") is None

    @dg.asset
    def asking(context: dg.AssetExecutionContext) -> str:
        return str(loop.require(context, "candidate", "artefact_digest"))

    with pytest.raises(dg.Failure, match="m/candidate has no `artefact_digest` yet: materialize it first"):
        dg.materialize([asking], instance=instance)
    instance.report_runless_asset_event(
        dg.AssetMaterialization(loop.key("candidate"), metadata={"artefact_digest": "abc"})
    )
    assert dg.materialize([asking], instance=instance).output_for_node("asking") == "abc"
