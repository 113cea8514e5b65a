"""What makes a retrain start: a decision that says one is due, once."""

from __future__ import annotations

import dagster as dg
import pytest

from mlops_assets.lineage.loop import Loop, check_result
from mlops_assets.verdict import Verdict
from tests.lineage.world import definitions

CHAIN = {
    *("training_set", "test_set", "training_features", "trials", "candidate", "evaluation", "registered_version"),
}


class Watch:
    """The automation sensor's view, tick by tick."""

    def __init__(self, loop: Loop, instance: dg.DagsterInstance) -> None:
        self._loop, self._instance = loop, instance
        self._definitions = definitions(loop)
        self._cursor = self._evaluate(None).cursor  # the first evaluation only says what is there

    def requested(self) -> set[str]:
        """The assets of the training chain that this tick asks for."""
        found = self._evaluate(self._cursor)
        self._cursor = found.cursor
        return {name for name in CHAIN if found.get_num_requested(self._loop.key(name))}

    def decide(self, verdict: Verdict) -> None:
        """A new `retrain_decision` with its check, as the asset leaves them."""
        key = self._loop.key("retrain_decision")
        result = check_result("not_due", verdict, "reason", severity=dg.AssetCheckSeverity.WARN)

        @dg.asset(key=key, check_specs=[dg.AssetCheckSpec("not_due", asset=key)])
        def retrain_decision() -> dg.MaterializeResult:
            return dg.MaterializeResult(check_results=[result])

        assert dg.materialize([retrain_decision], instance=self._instance).success

    def _evaluate(self, cursor: object) -> dg.EvaluateAutomationConditionsResult:
        chain = dg.AssetSelection.assets(*(self._loop.key(name) for name in (*CHAIN, "retrain_decision")))
        return dg.evaluate_automation_conditions(
            defs=self._definitions, instance=self._instance, cursor=cursor, asset_selection=chain
        )


@pytest.fixture
def watch(loop: Loop, instance: dg.DagsterInstance) -> Watch:
    return Watch(loop, instance)


def test_nothing_starts_before_there_is_a_decision(watch: Watch) -> None:
    assert watch.requested() == set()


def test_a_decision_that_a_retrain_is_due_starts_the_whole_chain_in_one_go(watch: Watch) -> None:
    watch.decide(Verdict.FAIL)
    assert watch.requested() == CHAIN


def test_one_decision_starts_one_retrain(watch: Watch) -> None:
    watch.decide(Verdict.FAIL)
    watch.requested()
    assert [watch.requested() for _ in range(3)] == [set()] * 3


def test_a_decision_that_none_is_due_starts_nothing(watch: Watch) -> None:
    watch.decide(Verdict.PASS)
    assert watch.requested() == set()


def test_the_next_decision_that_one_is_due_starts_the_next(watch: Watch) -> None:
    watch.decide(Verdict.FAIL)
    watch.requested()
    watch.decide(Verdict.PASS)
    assert watch.requested() == set()
    watch.decide(Verdict.FAIL)
    assert watch.requested() == CHAIN
