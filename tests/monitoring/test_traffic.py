"""Traffic by the hour: each message counted once, whenever and however often one looks."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from mlops_assets.monitoring.machine import Sample, longest_spell, read_samples, write_samples
from mlops_assets.monitoring.predictions import read_requests
from mlops_assets.monitoring.traffic import HOUR, Hour, Traffic, count_hours, read_traffic
from tests.monitoring.test_predictions import ARRIVED, log, prediction
from tests.monitoring.test_quality import DAY

LATER = ARRIVED + timedelta(hours=3)


def look(home: Path, now: datetime = LATER, slow_ms: float = 100.0) -> Traffic:
    return read_traffic(home / "log", home / "hours.json", slow_ms, now)


def add(home: Path, *lines: str) -> None:
    with (home / "log" / "replica-1.ndjson").open("a") as file:
        file.writelines(lines)


def test_an_hour_counts_its_messages_and_those_answered_late_or_never(tmp_path: Path) -> None:
    slow, failed = prediction(2, latency_ms=250.0), prediction(3, status="failed", latency_ms=2.0)
    aside = prediction(4, repeat=True), prediction(5, overridden=True)
    log(tmp_path / "log", prediction(1), slow, failed, *aside)
    assert look(tmp_path).at(ARRIVED) == Hour(ARRIVED, requests=3, slow=2)
    assert look(tmp_path).last(3) == [
        Hour(ARRIVED + n * HOUR, *counts) for n, counts in ((2, (0, 0)), (1, (0, 0)), (0, (3, 2)))
    ]


def test_the_log_as_a_table_gives_the_same_hours(tmp_path: Path) -> None:
    slow, failed = prediction(2, latency_ms=250.0), prediction(3, status="failed", latency_ms=2.0)
    later = prediction(6, event_timestamp=(ARRIVED + HOUR).isoformat())
    aside = prediction(4, repeat=True), prediction(5, overridden=True)
    log(tmp_path / "log", prediction(1), slow, failed, *aside, later)
    counted = Traffic(count_hours(read_requests(tmp_path / "log").rows, 100.0), LATER)
    assert counted.last(3) == look(tmp_path).last(3)


def test_only_what_is_new_is_read_and_nothing_twice(tmp_path: Path) -> None:
    log(tmp_path / "log", prediction(1))
    look(tmp_path)
    text = (tmp_path / "log" / "replica-1.ndjson").read_text()
    (tmp_path / "log" / "replica-1.ndjson").write_text("x" * (len(text) - 1) + "\n")  # not looked at again
    add(tmp_path, json.dumps(prediction(2)) + "\n")
    log(tmp_path / "log", prediction(3), segment="replica-2")
    assert look(tmp_path).at(ARRIVED) == look(tmp_path).at(ARRIVED) == Hour(ARRIVED, 3, 0)


def test_a_line_that_is_still_being_written_is_counted_when_it_is_whole(tmp_path: Path) -> None:
    line = json.dumps(prediction(2)) + "\n"
    log(tmp_path / "log", prediction(1), torn=line[:40])
    assert look(tmp_path).at(ARRIVED) == Hour(ARRIVED, 1, 0)
    add(tmp_path, line[40:], '{"torn\n')
    assert look(tmp_path).at(ARRIVED) == Hour(ARRIVED, 2, 0)


def test_another_limit_counts_anew(tmp_path: Path) -> None:
    log(tmp_path / "log", prediction(1, latency_ms=60.0))
    assert look(tmp_path).at(ARRIVED) == Hour(ARRIVED, 1, 0)
    assert look(tmp_path, slow_ms=50.0).at(ARRIVED) == Hour(ARRIVED, 1, 1)


def test_an_hour_that_is_not_over_and_one_before_the_first_are_not_told(tmp_path: Path) -> None:
    assert look(tmp_path).last(5) == []
    log(tmp_path / "log", prediction(1))
    assert look(tmp_path, now=ARRIVED + timedelta(minutes=59)).last(5) == []
    assert look(tmp_path).at(ARRIVED - HOUR) is None


def test_old_hours_are_forgotten(tmp_path: Path) -> None:
    log(tmp_path / "log", prediction(1))
    assert look(tmp_path, now=ARRIVED + timedelta(weeks=11)).at(ARRIVED) is None


def test_samples_of_the_machine_come_back_as_they_were_taken(tmp_path: Path) -> None:
    assert read_samples(tmp_path) == []
    taken = [Sample(DAY, 0.5), Sample(DAY + timedelta(seconds=10), 0.25, gpu=1.0)]
    write_samples(tmp_path, taken)
    assert read_samples(tmp_path) == taken


@pytest.mark.parametrize(
    ("shares", "step", "minutes"),
    [
        ([0.95] * 31, 10, 5),
        ([0.95] * 20 + [0.5] + [0.95] * 13, 10, 19 / 6),
        ([0.95] * 6, 90, 0),  # too far apart to know
        ([0.5] * 20, 10, 0),
        ([], 10, 0),
    ],
)
def test_a_spell_ends_with_a_calm_sample_or_a_gap(shares: list[float], step: int, minutes: float) -> None:
    taken = [Sample(DAY + timedelta(seconds=step * n), share) for n, share in enumerate(shares)]
    assert longest_spell(taken, 0.9) == timedelta(minutes=minutes)
