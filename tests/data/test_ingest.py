"""From the inbox to validated days: nothing is lost, and a day comes out the same however often it is made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.data.ingest import (
    day_file,
    inbox_files,
    read_days,
    read_events,
    read_messages,
    set_aside,
    write_days,
    write_quarantine,
)
from mlops_assets.data.tables import SUFFIXES, write_table
from mlops_assets.settings import ModelHome
from mlops_assets.spec import DataSpec
from tests.data.factories import START, faults, messages

SPEC = DataSpec()
NOW = START + timedelta(days=365)


@pytest.fixture
def home(tmp_path: Path) -> ModelHome:
    return ModelHome(tmp_path)


def put(home: ModelHome, name: str, frame: pl.DataFrame, kind: str = "messages") -> Path:
    return write_table(home.incoming / kind / name, frame)


def cut_in_half(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def test_an_empty_inbox_has_no_rows(home: ModelHome) -> None:
    inbox = read_messages(home.incoming / "messages", SPEC, NOW)
    assert inbox.good() is None
    assert inbox.rejected == ()


def test_only_whole_tables_count_as_files(home: ModelHome) -> None:
    table = put(home, "a.csv", messages())
    for name in (".b.csv.part", ".c.csv", "notes.txt"):
        (table.parent / name).write_text("not yet")
    assert inbox_files(table.parent) == [table]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_case_of_a_suffix_does_not_matter(home: ModelHome, suffix: str) -> None:
    table = put(home, f"EXPORT{suffix.upper()}", messages(3))
    (batch,) = read_messages(table.parent, SPEC, NOW).batches
    assert (batch.path, batch.validated.good.height) == (table, 3)


def test_files_are_read_in_the_order_of_their_names_and_an_id_counts_once_over_all_of_them(home: ModelHome) -> None:
    put(home, "2.csv", messages(3, text=["the second file"] * 3))
    put(home, "1.csv", messages(2, text=["the first file"] * 2))
    inbox = read_messages(home.incoming / "messages", SPEC, NOW)
    first, second = inbox.batches
    assert first.validated.good["text"].to_list() == ["the first file"] * 2
    assert faults(second.validated.bad) == [(0, "message_id", "new"), (1, "message_id", "new")]
    good = inbox.good()
    assert good is not None
    assert good["message_id"].to_list() == ["m0", "m1", "m2"]


BROKEN = {
    "an empty file": (lambda path: path.write_bytes(b""), "it is empty"),
    "a parquet file cut in half": (cut_in_half, "broken or cut short"),
    "something that is no parquet": (lambda path: path.write_text("hello"), "broken or cut short"),
    "a table without rows": (lambda path: write_table(path, messages(0)), "no rows"),
    "a table that lacks a column": (lambda path: write_table(path, messages().drop("text")), "missing column text"),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_file_that_is_no_table_is_set_aside_with_its_reason_while_the_others_go_on(
    home: ModelHome, damage: str
) -> None:
    put(home, "good.parquet", messages(4))
    broken = put(home, "broken.parquet", messages(50, message_id=[f"x{i}" for i in range(50)]))
    breaks, reason = BROKEN[damage]
    breaks(broken)
    content = broken.read_bytes()

    inbox = read_messages(home.incoming / "messages", SPEC, NOW)
    (moved,) = set_aside(inbox.rejected, home.quarantine)

    assert [batch.path.name for batch in inbox.batches] == ["good.parquet"]
    assert not broken.exists()
    assert moved.read_bytes() == content
    assert reason in moved.with_name(f"{moved.name}.reason.txt").read_text()


def test_two_broken_files_of_one_name_are_both_kept(home: ModelHome) -> None:
    for content in (b"first", b"second"):
        path = home.incoming / "messages" / "day.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        set_aside(read_messages(path.parent, SPEC, NOW).rejected, home.quarantine)
    kept = {path.read_bytes() for path in (home.quarantine / "files").iterdir() if path.suffix != ".txt"}
    assert kept == {b"first", b"second"}


BAD_ROWS = {
    "a label outside the set": ({"label": ["order_status", "praise", "refund"]}, [(1, "label", "known_label")]),
    "a text of 10,000 characters": ({"text": ["hi", "x" * 10_000, "bye"]}, [(1, "text", "length")]),
    "a blank text": ({"text": ["hi", "  ", "bye"]}, [(1, "text", "length")]),
    "a missing text": ({"text": ["hi", None, "bye"]}, [(1, "text", "present")]),
    "the same id twice": ({"message_id": ["a", "a", "b"]}, [(1, "message_id", "unique")]),
    "a time without zone": (
        {"event_timestamp": ["2026-03-01T10:00:00Z", "2026-03-01T10:00:00", "2026-03-01T12:00:00+02:00"]},
        [(1, "event_timestamp", "readable")],
    ),
    "a column of nothing": (
        {"text": pl.Series([None, None, None], dtype=pl.String)},
        [(row, "text", "present") for row in range(3)],
    ),
}


@pytest.mark.parametrize("fault", BAD_ROWS)
def test_a_bad_row_is_quarantined_with_row_column_and_check_and_the_others_are_good(
    home: ModelHome, fault: str
) -> None:
    columns, found = BAD_ROWS[fault]
    put(home, "day.parquet", messages(3, **columns))
    inbox = read_messages(home.incoming / "messages", SPEC, NOW)
    write_quarantine(inbox, home.quarantine)

    kept = pl.concat([pl.read_parquet(path) for path in home.quarantine.glob("*.parquet")])
    assert [(int(row), column, check) for row, column, check in faults(kept)] == found
    assert kept["file"].unique().to_list() == ["day.parquet"]
    good = inbox.good()
    assert good is not None
    assert good.height == 3 - len({row for row, _, _ in found})


def test_a_quarantined_row_keeps_its_original_values(home: ModelHome) -> None:
    put(home, "day.parquet", messages(2, text=["hi", "x" * 10_000]))
    kept = write_quarantine(read_messages(home.incoming / "messages", SPEC, NOW), home.quarantine)
    assert kept["text"].to_list() == ["x" * 10_000]
    assert kept["message_id"].to_list() == ["m1"]


def test_the_quarantine_of_two_files_that_differ_in_their_suffix_is_kept_apart(home: ModelHome) -> None:
    put(home, "day.csv", messages(2, text=["hi", ""]))
    put(home, "day.parquet", messages(2, message_id=["x", "y"]))
    write_quarantine(read_messages(home.incoming / "messages", SPEC, NOW), home.quarantine)
    kept = pl.concat([pl.read_parquet(path) for path in home.quarantine.glob("*.parquet")])
    assert kept["file"].unique().to_list() == ["day.csv"]


def test_a_mended_file_leaves_the_quarantine(home: ModelHome) -> None:
    put(home, "day.parquet", messages(2, text=["hi", ""]))
    write_quarantine(read_messages(home.incoming / "messages", SPEC, NOW), home.quarantine)
    put(home, "day.parquet", messages(2))
    assert write_quarantine(read_messages(home.incoming / "messages", SPEC, NOW), home.quarantine).is_empty()
    assert not list(home.quarantine.glob("*.parquet"))


def test_a_broken_file_of_customer_events_is_rejected_too(home: ModelHome) -> None:
    cut_in_half(put(home, "events.parquet", messages(50), kind="customer_events"))
    (rejected,) = read_events(home.incoming / "customer_events").rejected
    assert "broken or cut short" in rejected.reason


def test_a_day_holds_the_rows_from_its_first_moment_to_the_last_before_the_next(tmp_path: Path) -> None:
    edges = [START, START + timedelta(days=1) - timedelta(microseconds=1), START + timedelta(days=1)]
    days = [START, START + timedelta(days=1)]
    assert write_days(messages(3, event_timestamp=edges), days, tmp_path) == {days[0]: 2, days[1]: 1}


def test_a_day_that_lost_its_rows_loses_its_file(tmp_path: Path) -> None:
    write_days(messages(3), [START], tmp_path)
    write_days(messages(3).clear(), [START], tmp_path)
    assert not day_file(tmp_path, START).exists()
    assert read_days(tmp_path) is None


@settings(max_examples=20)
@given(order=st.permutations(range(30)))
def test_a_day_has_the_same_bytes_whatever_the_order_of_its_rows(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("days")
    rows = messages(30)
    write_days(rows, [START], folder)
    before = day_file(folder, START).read_bytes()
    write_days(rows[order], [START], folder)
    assert day_file(folder, START).read_bytes() == before


def test_the_days_together_are_what_was_ingested(tmp_path: Path) -> None:
    rows = messages(60)
    write_days(rows, [START + timedelta(days=n) for n in range(3)], tmp_path)
    found = read_days(tmp_path)
    assert found is not None
    assert found.equals(rows)
    assert found["event_timestamp"].min() == datetime(2026, 3, 1, tzinfo=UTC)
