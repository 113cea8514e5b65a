from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlops_assets.data.tables import (
    MESSAGE_SCHEMA,
    EmptyTable,
    MissingColumn,
    UnreadableFile,
    cast_values,
    read_table,
    to_events,
    to_messages,
    write_table,
)
from mlops_assets.spec import Columns
from tests.data.factories import events, messages


@pytest.mark.parametrize("suffix", ["parquet", "csv", "ndjson", "jsonl"])
def test_a_table_survives_every_format(tmp_path: Path, suffix: str) -> None:
    frame = messages(3, customer_id=["0012", None, "a,b"], text=["line\nbreak", 'quote "x"', "naïve 退款"])
    path = write_table(tmp_path / f"messages.{suffix}", frame)
    assert to_messages(read_table(path), Columns()).equals(frame)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="No such file"):
        read_table(tmp_path / "gone.parquet")


def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"\.csv, \.jsonl, \.ndjson, \.parquet"):
        read_table(tmp_path / "messages.xlsx")
    with pytest.raises(UnreadableFile, match="suffix"):
        write_table(tmp_path / "messages.xlsx", messages(1))


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.ndjson"])
def test_an_empty_file_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\n")
    with pytest.raises(UnreadableFile, match=f"{name} cannot be read as a table: it is empty"):
        read_table(tmp_path / name)


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.95])
def test_a_parquet_file_cut_short_names_the_file(tmp_path: Path, kept: float) -> None:
    path = write_table(tmp_path / "messages.parquet", messages(500))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UnreadableFile, match=r"messages\.parquet cannot be read as a table: it is broken or cut short"):
        read_table(path)


@pytest.mark.parametrize("content", [b'{"a": 1}\n{"a":', b"not json\n", b"[1, 2]\n"])
def test_json_that_is_none_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.ndjson").write_bytes(content)
    with pytest.raises(UnreadableFile, match=r"a\.ndjson"):
        read_table(tmp_path / "a.ndjson")


@pytest.mark.slow
@given(content=st.binary(min_size=1, max_size=300))
@example(content=b"\r\x00\n\x80")
@example(content=b"a\n" + b"x" * 200_000 + b"\x80")
@settings(max_examples=50)
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    for suffix in ("parquet", "ndjson", "csv"):
        path = tmp_path_factory.getbasetemp() / f"fuzz.{suffix}"
        path.write_bytes(content)
        try:
            frame = read_table(path)
        except UnreadableFile as error:
            assert error.path == path  # noqa: PT017 - either outcome is allowed, no other error is
        else:
            assert isinstance(frame, pl.DataFrame)


def test_a_missing_column_is_named_with_what_the_table_has() -> None:
    with pytest.raises(MissingColumn, match=r"missing column text; the table has: message_id, .*data\.columns"):
        to_messages(messages(2).drop("text"), Columns())


def test_the_users_names_become_ours_and_other_columns_are_dropped() -> None:
    frame = messages(2).rename({"text": "body"}).with_columns(text=pl.lit("the wrong one"), source=pl.lit("chat"))
    renamed = to_messages(frame, Columns(text="body"))
    assert renamed.schema == MESSAGE_SCHEMA
    assert renamed["text"][0] == "where is my order number 0"


def test_a_table_without_rows_is_an_error() -> None:
    with pytest.raises(EmptyTable, match="no rows"):
        to_messages(messages(0), Columns())


def test_nanoseconds_and_other_zones_become_utc_microseconds() -> None:
    amsterdam = (
        messages(2)["event_timestamp"]
        .dt.convert_time_zone("Europe/Amsterdam")
        .cast(pl.Datetime("ns", "Europe/Amsterdam"))
    )
    assert to_messages(messages(2).with_columns(amsterdam), Columns()).equals(messages(2))


def test_local_times_stay_as_they_came() -> None:
    naive = messages(2)["event_timestamp"].dt.replace_time_zone(None)
    assert to_messages(messages(2).with_columns(naive), Columns())["event_timestamp"].dtype == pl.Datetime("us")


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01 12:00:00.25+0200", datetime(2026, 3, 1, 10, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-03-01T12:00:00-05:30", datetime(2026, 3, 1, 17, 30, tzinfo=UTC)),
        ("2026-03-01 12:00:00", None),
        ("2026-03-01", None),
        ("yesterday", None),
    ],
)
def test_only_times_with_a_zone_are_read(text: str, time: datetime | None) -> None:
    assert cast_values(pl.Series([text]), MESSAGE_SCHEMA["event_timestamp"]).to_list() == [time]


def test_numbers_are_cast_only_where_nothing_is_lost() -> None:
    assert cast_values(pl.Series([1.0, None, 1.5]), pl.Int64()).to_list() == [1, None, None]
    assert cast_values(pl.Series([17850.0, None]), pl.String()).to_list() == ["17850", None]
    assert cast_values(pl.Series([0.5, 2.0]), pl.String()).to_list() == ["0.5", "2.0"]
    assert cast_values(pl.Series([float("nan"), float("inf"), 3.0]), pl.Int64()).to_list() == [None, None, 3]
    assert cast_values(pl.Series([["nested"]]), pl.String()).to_list() == [None]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_whole_numbers_with_gaps_are_the_ids_that_they_were(tmp_path: Path, quoting: int) -> None:
    frame = messages(3, customer_id=[1001, None, 1002]).with_columns(pl.col("customer_id").cast(pl.Float64))
    frame.to_pandas().to_csv(tmp_path / "pandas.csv", index=False, quoting=quoting)
    with_nan = frame.with_columns(pl.col("customer_id").fill_null(float("nan")))
    for table in (read_table(tmp_path / "pandas.csv"), with_nan):
        read = to_messages(table, Columns())
        assert read["customer_id"].to_list() == ["1001", None, "1002"]
        assert read.schema == MESSAGE_SCHEMA


def test_an_id_that_ends_like_a_fraction_beside_others_is_left_as_it_is() -> None:
    read = to_messages(messages(3, customer_id=["1.0", "1.1", "v2.0"], text=["1.0", "2.0", "3.0"]), Columns())
    assert read["customer_id"].to_list() == ["1.0", "1.1", "v2.0"]
    assert read["text"].to_list() == ["1.0", "2.0", "3.0"]


def test_a_blank_id_is_none() -> None:
    read = to_messages(messages(2, message_id=["m", " "], customer_id=["", "c"]), Columns())
    assert read.select("message_id", "customer_id").rows() == [("m", None), (None, "c")]


def test_events_keep_their_known_time_where_there_is_one() -> None:
    frame = events([("c1", 0, 1, 5, 0, 0)])
    assert to_events(frame).columns == frame.columns
    late = frame.with_columns(known_timestamp=pl.col("event_timestamp") + pl.duration(hours=2))
    assert to_events(late)["known_timestamp"].dtype == pl.Datetime("us", "UTC")
