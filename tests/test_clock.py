"""The one clock: the wall's, or one that is moved and only moves forward."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from mlops_assets import clock
from mlops_assets.clock import ClockNotSet
from mlops_assets.settings import Settings

THEN = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def replay(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, replay_clock=True, _env_file=None)


def test_without_replay_it_is_the_wall_clock_and_cannot_be_moved(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, _env_file=None)
    assert abs(clock.now(settings) - datetime.now(UTC)) < timedelta(seconds=5)
    with pytest.raises(ValueError, match="MLOPS_REPLAY_CLOCK"):
        clock.move(settings, THEN)


def test_a_replayed_clock_stands_where_it_was_set(replay: Settings) -> None:
    with pytest.raises(ClockNotSet, match="POST /clock"):
        clock.now(replay)
    clock.move(replay, THEN)
    assert clock.now(replay) == THEN
    assert clock.now(Settings(home=replay.home, replay_clock=True, _env_file=None)) == THEN  # another process


def test_it_moves_forward_and_not_back(replay: Settings) -> None:
    clock.move(replay, THEN)
    clock.move(replay, THEN)
    clock.move(replay, THEN + timedelta(seconds=1))
    with pytest.raises(ValueError, match="cannot go back"):
        clock.move(replay, THEN)


def test_a_time_of_another_zone_is_kept_in_utc_and_one_without_zone_is_refused(replay: Settings) -> None:
    clock.move(replay, datetime(2026, 3, 1, 14, tzinfo=timezone(timedelta(hours=2))))
    assert clock.now(replay).utcoffset() == timedelta(0)
    assert clock.now(replay) == THEN
    with pytest.raises(ValueError, match="no time zone"):
        clock.move(replay, datetime(2026, 3, 2))
