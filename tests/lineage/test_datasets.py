"""Data, as Dagster runs it: history becomes days and a snapshot, and nothing that is wrong with it gets further."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from mlops_assets.data.assembly import Assembled, assemble
from mlops_assets.data.split import ASIDE, TRAIN, TooFewRows
from mlops_assets.lineage.loop import Loop
from tests.data.factories import START, faults, messages
from tests.lineage.world import checks, definitions, metadata, put, run_days

DAYS = [START + timedelta(days=n) for n in range(2)]


def days_on_disk(loop: Loop) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(loop.home.validated.glob("*.parquet"))}


@pytest.mark.slow
def test_history_becomes_days_and_quarantine_and_making_it_again_changes_nothing(
    loop: Loop, instance: dg.DagsterInstance
) -> None:
    texts = [f"where is my order number {n}" for n in range(47)]
    put(loop, "history.parquet", messages(48, text=[*texts, "x" * 10_000]))

    made = run_days(loop, instance, "ingest", *DAYS)

    assert made.success
    assert checks(made) == {
        "readable": (True, "every file could be read"),
        "contract": (True, "1 of 48 rows are quarantined, at most 5% of a file may be"),
        "missing_values": (
            False,
            "history.parquet: no value of 3 columns is missing in 48 rows; 90 rows are needed",
        ),
    }
    first = days_on_disk(loop)
    assert {name: pl.read_parquet(content).height for name, content in first.items()} == {
        "2026-03-01.parquet": 24,
        "2026-03-02.parquet": 23,
    }
    assert metadata(made, loop, "quarantine")["faults"] == 1
    report = Path(metadata(made, loop, "validated_messages")["report"])
    assert report == loop.home.reports / "data_quality.html"
    assert "47 messages keep the contract; 1 was set aside" in report.read_text()
    (kept,) = loop.home.quarantine.glob("*.parquet")
    assert [(int(row), column, check) for row, column, check in faults(pl.read_parquet(kept))] == [
        (47, "text", "length")
    ]

    (loop.home.validated / "2026-03-02.parquet").unlink()
    assert run_days(loop, instance, "ingest", DAYS[1], DAYS[1]).success  # a backfill of one day
    assert days_on_disk(loop) == first


@pytest.mark.slow
def test_too_many_bad_rows_stop_the_line_with_the_reason_and_lose_nothing(
    loop: Loop, instance: dg.DagsterInstance
) -> None:
    file = put(loop, "export.csv", messages(10, label=["order_status"] * 9 + ["praise"]))

    made = run_days(loop, instance, "ingest", *DAYS)

    assert not made.success
    passed, message = checks(made)["contract"]
    assert not passed
    assert message.startswith("export.csv: 1 of 10 rows (10.0%) break the data contract, more than the allowed 5.0%")
    assert "(first at row 9)" in message  # the value may be a customer's; it is in the quarantine
    assert days_on_disk(loop) == {}
    assert file.exists()
    assert [faults(pl.read_parquet(path)) for path in loop.home.quarantine.glob("*.parquet")] == [
        [("9", "label", "known_label")]
    ]


@pytest.mark.slow
def test_a_file_cut_in_half_is_set_aside_with_its_reason_and_the_good_one_goes_on(
    loop: Loop, instance: dg.DagsterInstance
) -> None:
    put(loop, "good.parquet", messages(24))
    torn = put(loop, "torn.parquet", messages(24))
    torn.write_bytes(torn.read_bytes()[:400])

    made = run_days(loop, instance, "ingest", *DAYS)

    assert made.success
    passed, message = checks(made)["readable"]
    assert not passed
    assert "torn.parquet" in message
    assert "cut short" in message
    assert list(days_on_disk(loop)) == ["2026-03-01.parquet"]
    assert (loop.home.quarantine / "files" / "torn.parquet").exists()
    assert "cut short" in (loop.home.quarantine / "files" / "torn.parquet.reason.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["mended", "removed"])
def test_a_file_that_was_set_aside_is_missed_until_it_is_mended_or_removed(
    loop: Loop, instance: dg.DagsterInstance, way: str
) -> None:
    aside = loop.home.quarantine / "files"
    for content in (b"torn", b"torn again"):
        put(loop, "march.parquet", messages(1)).write_bytes(content)
        run_days(loop, instance, "ingest", *DAYS)
    put(loop, "other.parquet", messages(24))

    passed, message = checks(run_days(loop, instance, "ingest", *DAYS))["readable"]
    assert not passed
    assert message.index("march.parquet: ") < message.index("march~2.parquet: ")
    assert message.endswith("put it in again under the same name, mended, or remove it from quarantine/files")

    if way == "mended":
        put(loop, "march.parquet", messages(2, message_id=["x", "y"]))
    else:
        for path in aside.iterdir():
            path.unlink()
    assert checks(run_days(loop, instance, "ingest", *DAYS))["readable"] == (True, "every file could be read")


def test_the_inbox_asks_once_for_the_days_that_a_file_covers(loop: Loop, instance: dg.DagsterInstance) -> None:
    sensor = definitions(loop).resolve_sensor_def("m_inbox")
    assert not sensor.evaluate_tick(dg.build_sensor_context(instance=instance)).run_requests

    put(loop, "history.parquet", messages(48))
    asked = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
    (request,) = asked.run_requests or []
    assert request.tags["dagster/asset_partition_range_start"] == "2026-03-01"
    assert request.tags["dagster/asset_partition_range_end"] == "2026-03-02"

    again = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=asked.cursor))
    assert not again.run_requests
    assert again.skip_message == "nothing new in the inbox"

    put(loop, "more.parquet", messages(2, message_id=["x", "y"]))
    assert sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=asked.cursor)).run_requests


@pytest.mark.slow
def test_rows_that_a_mended_file_no_longer_has_leave_the_days_too(loop: Loop, instance: dg.DagsterInstance) -> None:
    sensor = definitions(loop).resolve_sensor_def("m_inbox")
    job = definitions(loop).resolve_job_def("m_ingest")
    for rows in (72, 30):
        put(loop, "history.parquet", messages(rows))
        (request,) = sensor.evaluate_tick(dg.build_sensor_context(instance=instance)).run_requests or []
        assert job.execute_in_process(instance=instance, tags=request.tags).success

    assert list(days_on_disk(loop)) == ["2026-03-01.parquet", "2026-03-02.parquet"]
    assert learned_or_tested(assemble(loop.home, loop.spec.data, START + timedelta(days=9))).height == 30


def test_an_inbox_of_broken_files_alone_still_gets_a_run_that_says_so(loop: Loop, instance: dg.DagsterInstance) -> None:
    put(loop, "empty.csv", messages(1)).write_bytes(b"")
    sensor = definitions(loop).resolve_sensor_def("m_inbox")
    (request,) = sensor.evaluate_tick(dg.build_sensor_context(instance=instance)).run_requests or []
    assert request.tags["dagster/asset_partition_range_start"] == loop.spec.data.start.isoformat()


def write_day(loop: Loop, frame: pl.DataFrame) -> None:
    """Validated rows, as the graph leaves them."""
    from mlops_assets.data.ingest import write_days

    days = frame["event_timestamp"].dt.truncate("1d").unique().to_list()
    write_days(frame, days, loop.home.validated)


def learned_or_tested(made: Assembled) -> pl.DataFrame:
    return made.snapshot.read().filter(pl.col("part") != ASIDE)


def history(n: int = 60, **columns: object) -> pl.DataFrame:
    words = ("parcel", "refund", "invoice", "voucher", "return", "address", "card", "shoes", "lamp", "desk")
    texts = [f"{words[i % 10]} {words[i // 10 % 10]} {i} please {words[(i * 7) % 10]}{i}" for i in range(n)]
    return messages(n, text=texts, **columns)


@pytest.mark.slow
def test_a_snapshot_uses_no_label_before_it_was_known(loop: Loop) -> None:
    rows = history(60)  # each labelled a day after it came
    write_day(loop, rows)
    as_of = START + timedelta(days=2)
    made = assemble(loop.home, loop.spec.data, as_of)
    assert sum(made.counts.values()) == rows.filter(pl.col("label_timestamp") <= as_of).height == 25
    assert made.snapshot.read()["label_timestamp"].max() <= as_of


def test_a_label_that_became_known_later_is_in_the_next_snapshot_and_moves_no_row(loop: Loop) -> None:
    write_day(loop, history(60))
    early = learned_or_tested(assemble(loop.home, loop.spec.data, START + timedelta(days=2)))
    late = assemble(loop.home, loop.spec.data, START + timedelta(days=9)).snapshot.read()
    assert late.height > early.height
    both = early.select("message_id", "part").join(late.select("message_id", "part"), on="message_id", suffix="_late")
    assert both["part"].equals(both["part_late"].rename("part"))


def test_the_same_data_make_the_same_snapshot(loop: Loop) -> None:
    write_day(loop, history(60))
    first = assemble(loop.home, loop.spec.data, START + timedelta(days=9))
    again = assemble(loop.home, loop.spec.data, START + timedelta(days=30))
    assert again.snapshot.digest == first.snapshot.digest
    assert len(list(loop.home.snapshots.glob("*.parquet"))) == 1


def test_a_test_row_that_repeats_a_training_row_is_put_aside(loop: Loop) -> None:
    texts = history(60)["text"].to_list()
    texts[-1] = texts[0]
    write_day(loop, history(60).with_columns(text=pl.Series(texts)))
    made = assemble(loop.home, loop.spec.data, START + timedelta(days=9))
    assert made.removed.summary()["exact"] == 1
    assert made.remaining.summary()["exact"] == made.remaining.summary()["near"] == 0
    assert "m59" not in learned_or_tested(made)["message_id"].to_list()
    (aside,) = made.snapshot.read().filter(pl.col("part") == ASIDE).rows(named=True)
    assert (aside["message_id"], aside["label"]) == ("m59", None)


def test_what_is_held_out_stands_for_the_traffic_whether_its_label_is_known_or_not(loop: Loop) -> None:
    """Labels of one kind come late: without the rows that wait for them the reference would have hardly any of it."""
    write_day(loop, history(600))
    assemble(loop.home, loop.spec.data, START + timedelta(days=3))  # the first period, split by time
    now = START + timedelta(days=25)
    late = [START + timedelta(days=40) if n % 2 else START + timedelta(hours=n) for n in range(600)]
    write_day(loop, history(600, label_timestamp=late))
    held_out = assemble(loop.home, loop.spec.data, now).snapshot.read().filter(pl.col("part") != TRAIN)
    newest = held_out.filter(pl.col("event_timestamp") > START + timedelta(days=4))
    waiting = newest["message_id"].str.slice(1).cast(pl.Int64) % 2
    assert 0.4 < waiting.mean() < 0.6
    assert newest.filter(waiting == 1)["label"].null_count() == waiting.sum()


def test_a_label_that_is_declared_no_more_is_not_learned_and_its_rows_stay_traffic(loop: Loop) -> None:
    write_day(loop, history(60, label=["refund" if n % 4 == 0 else "query" for n in range(60)]))
    fewer = loop.spec.data.model_copy(update={"labels": ("query", "complaint")})
    made = assemble(loop.home, fewer, START + timedelta(days=9))
    assert set(learned_or_tested(made)["label"]) == {"query"}
    aside = made.snapshot.read().filter(pl.col("part") == ASIDE)
    assert aside.height > 0
    assert aside["label"].null_count() == aside.height


@pytest.mark.parametrize("as_of", [datetime(2026, 3, 1, tzinfo=UTC), START + timedelta(days=1)])
def test_without_enough_known_labels_there_is_no_snapshot_and_the_error_says_why(loop: Loop, as_of: datetime) -> None:
    write_day(loop, history(60))
    with pytest.raises(TooFewRows, match=r"known by|cannot be split"):
        assemble(loop.home, loop.spec.data, as_of)


def test_before_any_data_the_error_says_what_to_do(loop: Loop) -> None:
    with pytest.raises(TooFewRows, match="ingest history first"):
        assemble(loop.home, loop.spec.data, START)
