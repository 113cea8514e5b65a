"""The monitors under a policy: the limits that follow from its own days."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mlops_assets.drift.again import DayAgain
from mlops_assets.replay.events import Kind
from mlops_assets.replay.history import Found, Look
from mlops_assets.replay.known import KnownThen
from mlops_assets.replay.watch import Watch
from mlops_assets.verdict import Verdict
from tests.replay.factories import OWN, day, history, midnight

DAYS = 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("drift", "pages"), [(Verdict.PASS, False), (Verdict.FAIL, True), (Verdict.INSUFFICIENT_DATA, True), (None, True)]
)
def test_limits_rise_only_by_days_that_were_judged_and_did_not_drift(drift: Verdict | None, pages: bool) -> None:
    lived = history([0.0] * DAYS)
    watch = Watch(lived, OWN, {on: DayAgain(drift, {}) for on in lived.drift}, KnownThen(lived))
    for number in range(DAYS):
        watch.look(missing(number, score=(DAYS - number) % 5))
    at = midnight(day(DAYS - 1)) + timedelta(hours=1)
    watch.look(Look(at, at, {"predictions:latency": Found(Verdict.PASS, None, pages=False)}))
    told = watch.look(missing(DAYS, score=4.5))
    assert [event.kind for event in told if event.kind is Kind.PAGE] == [Kind.PAGE] * pages


def missing(number: int, score: float) -> Look:
    """A file that arrives at noon of a day."""
    at = midnight(day(number)) - timedelta(hours=12)
    return Look(at, at, {"validated_messages:missing_values": Found(Verdict.PASS, score, pages=False)})
