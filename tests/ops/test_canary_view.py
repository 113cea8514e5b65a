"""What the terminal shows of a rollout: its arms, the guards' evidence, and how long the verdict will take."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mlops_assets.ops.canary import Look
from mlops_assets.ops.canary_view import as_shown
from mlops_assets.release.counts import ArmCounts, Counts
from mlops_assets.serving.keeper import Keeper
from mlops_assets.serving.routing import Tally, VersionRef
from mlops_assets.spec import ModelSpec
from tests.serving.held import HeldSplit

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STABLE, CANARY = VersionRef(1, "/stable", "a"), VersionRef(2, "/canary", "b")


def rollout(folder: Path, minutes: float, stable: ArmCounts, canary: ArmCounts) -> dict[str, Any]:
    """A rollout as the guard describes it, once so much was counted."""
    keeper = Keeper(ModelSpec(name="m"), folder, 1.0)
    keeper.follow(STABLE, CANARY, CANARY.version, NOON)
    keeper.canary_ready(CANARY, "birth", NOON)
    at = NOON + timedelta(minutes=minutes)
    begun = keeper.route().canary
    assert begun is not None
    keeper.absorb("replica", Tally(begun.rollout_id, (Counts(stable, canary),)), at)
    return keeper.describe(at)


def shown(look: Look, before: Look | None = None) -> str:
    console = Console(width=160, record=True, file=StringIO())
    console.print(as_shown(look, before))
    return console.export_text()


def test_a_running_rollout_shows_both_arms_and_what_is_still_lacking(tmp_path: Path) -> None:
    stable = ArmCounts(requests=900, failures=1, slow=2, judged=100, wrong=5, entities=90)
    canary = ArmCounts(requests=100, failures=2, slow=1, judged=10, wrong=1, entities=10)
    text = shown(Look(rollout(tmp_path, 5, stable, canary), 0.0))
    assert "m: version 2 beside 1  progressing" in text
    assert "step 1 of 1: the canary gets the requests of 10.0% of customers" in text
    assert "expected until the verdict: " in text
    assert any(line.split()[:4] == ["canary", "2", "100", "2"] for line in text.splitlines())
    assert "2 (2 %)" in text
    assert all(guard in text for guard in ("failures", "success_floor", "slow", "wrong"))
    assert "sample ratio" in text


def test_a_stopped_rollout_says_which_guard_did_it(tmp_path: Path) -> None:
    text = shown(Look(rollout(tmp_path, 5, ArmCounts(requests=100), ArmCounts(requests=20, failures=20)), 0.0))
    assert "failed" in text.splitlines()[0]
    assert "guard.failures" in text
    assert "expected until" not in text


def test_between_two_looks_the_rate_of_each_arm_is_shown(tmp_path: Path) -> None:
    before = rollout(tmp_path / "a", 1, ArmCounts(requests=100), ArmCounts(requests=10))
    after = rollout(tmp_path / "b", 1, ArmCounts(requests=300), ArmCounts(requests=30))
    text = shown(Look(after, 12.0), Look(before, 10.0))
    assert "100.0/s" in text
    assert "10.0/s" in text


def test_an_endpoint_that_fell_silent_is_told_below_what_it_last_said(tmp_path: Path) -> None:
    look = Look(rollout(tmp_path, 1, ArmCounts(requests=1), ArmCounts()), 0.0, "no answer")
    assert "this is what it last said: no answer" in shown(look)


def test_an_ab_test_shows_the_time_left_and_a_comparison_that_is_not_final(tmp_path: Path) -> None:
    split = HeldSplit(tmp_path)
    split.serve(customers=400, hours=2)
    text = shown(Look(split.keeper.describe(NOON + timedelta(hours=2)), 0.0))
    assert "expected until the verdict: 70.0 hours" in text
    assert "A/B test, not final" in text
    (line,) = (line.split() for line in text.splitlines() if line.startswith("correct"))
    assert float(line[1].rstrip("%")) == pytest.approx(80, abs=4)
    assert line[3] == "100.00%"
    assert line[6] == "points"
    split.report(72)
    text = shown(Look(split.keeper.describe(NOON + timedelta(hours=72)), 0.0))
    assert "A/B test, at its end" in text
    assert "all three intervals hold with 95% confidence" in text
    assert "waiting_promotion" in text.splitlines()[0]
