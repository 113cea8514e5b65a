from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.data.snapshots import (
    Forgotten,
    SnapshotCorrupt,
    SnapshotMissing,
    content_digest,
    forget_rows,
    latest_snapshot,
    load_snapshot,
    write_snapshot,
)
from mlops_assets.data.tables import write_table
from tests.data.factories import messages

NOW = datetime(2026, 3, 9, tzinfo=UTC)


def test_a_snapshot_gives_back_its_rows_and_manifest(tmp_path: Path) -> None:
    written = write_snapshot(tmp_path, messages(5), {"as_of": "2026-03-02"})
    assert written.rows == 5
    assert written.path.name == f"{written.digest}.parquet"
    loaded = load_snapshot(tmp_path, written.digest)
    assert loaded == written
    assert loaded.manifest == {"as_of": "2026-03-02"}
    assert loaded.read().equals(messages(5))


def test_the_same_content_in_another_order_is_not_written_again(tmp_path: Path) -> None:
    first = write_snapshot(tmp_path, messages(5), {"by": "first"})
    before = first.path.stat()
    again = write_snapshot(tmp_path, messages(5).reverse(), {"by": "second"})
    assert again == first
    assert again.manifest == {"by": "first"}
    assert again.path.stat().st_mtime_ns == before.st_mtime_ns


def test_the_latest_is_the_one_written_last_also_when_its_content_is_old(tmp_path: Path) -> None:
    assert latest_snapshot(tmp_path) is None
    old = write_snapshot(tmp_path, messages(5), {})
    new = write_snapshot(tmp_path, messages(6), {})
    assert latest_snapshot(tmp_path) == new
    write_snapshot(tmp_path, messages(5), {})
    assert latest_snapshot(tmp_path) == old


def test_a_write_that_crashed_before_its_manifest_is_finished_by_the_next(tmp_path: Path) -> None:
    path = write_table(tmp_path / f"{content_digest(messages(5))}.parquet", messages(5))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(SnapshotMissing):
        load_snapshot(tmp_path, path.stem)
    assert write_snapshot(tmp_path, messages(5), {}).read().height == 5


def test_a_missing_snapshot_is_named_with_those_that_exist(tmp_path: Path) -> None:
    written = write_snapshot(tmp_path, messages(5), {})
    with pytest.raises(SnapshotMissing, match=f"no snapshot 000000000000 .*{written.digest[:12]}"):
        load_snapshot(tmp_path, "0" * 64)


def test_a_changed_or_broken_file_is_refused(tmp_path: Path) -> None:
    written = write_snapshot(tmp_path, messages(5), {})
    write_table(written.path, messages(6))
    with pytest.raises(SnapshotCorrupt, match="holds the content"):
        written.read()
    written.path.write_bytes(written.path.read_bytes()[:100])
    with pytest.raises(SnapshotCorrupt, match="cut short"):
        written.read()


@pytest.mark.slow
@given(st.lists(st.tuples(st.text(max_size=3), st.floats(), st.none() | st.integers(0, 9)), min_size=1), st.randoms())
@settings(max_examples=50)
def test_the_digest_ignores_order_and_nothing_else(rows: list[tuple[str, float, int | None]], random: object) -> None:
    schema = {"a": pl.String, "b": pl.Float64, "c": pl.Int64}
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    digest = content_digest(pl.DataFrame(rows, schema, orient="row"))
    assert digest == content_digest(pl.DataFrame(shuffled, schema, orient="row"))
    assert digest != content_digest(pl.DataFrame([*rows, rows[0]], schema, orient="row"))


@pytest.mark.parametrize(
    "other",
    [
        pl.DataFrame({"a": ["x", ""], "b": [1.0, None]}),
        pl.DataFrame({"a": ["x", None], "b": [1.0 + 2**-52, None]}),
        pl.DataFrame({"a": ["x", "null"], "b": [1.0, None]}),
        pl.DataFrame({"a": ["x", None], "b": [1, None]}),
        pl.DataFrame({"a": ["x", None], "c": [1.0, None]}),
        pl.DataFrame({"a": ["x", None], "b": [None, 1.0]}),
    ],
)
def test_the_least_difference_changes_the_digest(other: pl.DataFrame) -> None:
    assert content_digest(other) != content_digest(pl.DataFrame({"a": ["x", None], "b": [1.0, None]}))


def test_the_digest_is_the_same_in_every_release() -> None:
    known = "cb5cfa6b"
    assert content_digest(messages(3)).startswith(known)


def test_rows_that_are_forgotten_leave_a_record_that_the_rest_is_checked_against(tmp_path: Path) -> None:
    made = write_snapshot(tmp_path, messages(5), {"as_of": "2026-03-02"})
    assert forget_rows(tmp_path, made.digest, pl.col("message_id") == "m1", NOW) == 1
    left = load_snapshot(tmp_path, made.digest)
    assert left.read()["message_id"].to_list() == ["m0", "m2", "m3", "m4"]
    assert left.forgotten == (Forgotten(NOW.isoformat(), 1, content_digest(left.read())),)
    assert (left.digest, left.rows, left.manifest) == (made.digest, 5, made.manifest)
    assert forget_rows(tmp_path, made.digest, pl.col("message_id") == "m1", NOW) == 0
    forget_rows(tmp_path, made.digest, pl.col("customer_id") == "c3", NOW)
    assert len(load_snapshot(tmp_path, made.digest).forgotten) == 2
    write_table(left.path, messages(5))  # somebody puts the rows back
    with pytest.raises(SnapshotCorrupt):
        load_snapshot(tmp_path, made.digest).read()


def test_forgetting_that_crashed_after_its_record_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_snapshot(tmp_path, messages(5), {})
    gone = pl.col("message_id") == "m1"
    with monkeypatch.context() as patch:
        patch.setattr("mlops_assets.data.snapshots.write_table", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            forget_rows(tmp_path, made.digest, gone, NOW)
    with pytest.raises(SnapshotCorrupt):
        load_snapshot(tmp_path, made.digest).read()
    assert forget_rows(tmp_path, made.digest, gone, NOW) == 1
    assert len(load_snapshot(tmp_path, made.digest).forgotten) == 1
    assert load_snapshot(tmp_path, made.digest).read().height == 4


def test_a_changed_snapshot_loses_the_rows_and_is_not_mended_by_that(tmp_path: Path) -> None:
    made = write_snapshot(tmp_path, messages(5), {})
    write_table(made.path, messages(6))
    assert forget_rows(tmp_path, made.digest, pl.col("message_id") == "m1", NOW) == 1
    assert load_snapshot(tmp_path, made.digest).forgotten == ()
    with pytest.raises(SnapshotCorrupt):
        load_snapshot(tmp_path, made.digest).read()
