"""A record is on disk when `append` returns, whatever happens to the process or to the disk."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlops_assets.monitoring.predictions import segment_day
from mlops_assets.serving.append_log import AppendLog, LogUnavailable, blank
from tests.serving.full_disk import no_room_in


def test_each_record_is_one_line_of_json(tmp_path: Path) -> None:
    log = AppendLog(tmp_path, "replica")
    log.append({"text": "zwei\nZeilen", "n": 1})
    log.append({"n": 2})
    lines = log.path.read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines] == [1, 2]


def test_a_record_survives_the_death_of_the_process(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        AppendLog(tmp_path, "replica").append({"n": 1})
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    (segment,) = tmp_path.iterdir()
    assert json.loads(segment.read_text()) == {"n": 1}


def test_records_of_many_threads_do_not_mix(tmp_path: Path) -> None:
    log = AppendLog(tmp_path, "replica")
    threads = [threading.Thread(target=lambda: [log.append({"text": "x" * 5000}) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(json.loads(line)["text"]) for line in log.path.read_text().splitlines()] == [5000] * 200


def test_a_full_segment_is_followed_by_another(tmp_path: Path) -> None:
    log = AppendLog(tmp_path, "replica", segment_bytes=8)
    log.append({"n": 1})
    log.append({"n": 2})
    assert len(list(tmp_path.glob("replica-*.ndjson"))) == 2


def test_a_new_day_begins_a_new_segment_that_its_name_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AppendLog(tmp_path, "replica")
    log.append({"n": 1})
    first = log.path
    assert segment_day(first) == datetime.now(UTC).date()
    tomorrow = time.time() + 86_400
    monkeypatch.setattr("mlops_assets.serving.append_log.time.time", lambda: tomorrow)
    log.append({"n": 2})
    assert (len(first.read_text().splitlines()), log.path != first) == (1, True)


def test_a_folder_that_cannot_be_written_is_an_error_and_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.write_text("a file in the way")
    log = AppendLog(folder, "replica")
    with pytest.raises(LogUnavailable):
        log.append({"n": 1})
    folder.unlink()
    log.append({"n": 2})
    assert json.loads(log.path.read_text()) == {"n": 2}


def test_trouble_is_told_once_however_many_records_meet_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = AppendLog(tmp_path / "log", "replica")
    with no_room_in(tmp_path / "log"):
        for number in range(5):
            with pytest.raises(LogUnavailable):
                log.append({"n": number})
        assert len(caplog.records) == 1
    log.append({"n": 5})
    log.append({"n": 6})
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_what_is_no_json_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    log = AppendLog(tmp_path, "replica")
    with pytest.raises(ValueError, match="serialize"):
        log.append({"confidence": object()})
    assert not list(tmp_path.iterdir())


def test_what_is_not_a_number_is_null_as_json_has_no_word_for_it(tmp_path: Path) -> None:
    log = AppendLog(tmp_path, "replica")
    log.append({"orders": float("nan")})
    assert log.path.read_text() == '{"orders":null}\n'


def test_blanked_lines_leave_everything_else_where_it_is(tmp_path: Path) -> None:
    log = AppendLog(tmp_path, "replica")
    for n in range(4):
        log.append({"n": n})
    before = log.path.read_bytes()
    assert blank(log.path, lambda line: b"1" in line or b"3" in line) == 2
    log.append({"n": 4})  # by the process that has it open
    after = log.path.read_bytes()
    assert [after.find(line) for line in before.splitlines()] == [0, -1, 16, -1]
    assert [json.loads(line)["n"] for line in after.splitlines() if line.strip()] == [0, 2, 4]
    assert blank(log.path, lambda line: b"1" in line) == 0
