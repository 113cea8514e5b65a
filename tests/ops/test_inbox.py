"""A file is in the inbox whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlops_assets.data.ingest import inbox_files
from mlops_assets.ops.inbox import InboxRefused, put


def test_a_file_comes_in_under_its_own_name_and_again_changes_nothing(tmp_path: Path) -> None:
    source = tmp_path / "march.csv"
    source.write_text("a\n1\n")
    for _ in range(2):
        put(source, tmp_path / "inbox")
        (file,) = inbox_files(tmp_path / "inbox")
        assert (file.name, file.read_text()) == ("march.csv", "a\n1\n")


def test_a_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    source = tmp_path / "EXPORT.CSV"
    source.write_text("a\n1\n")
    put(source, tmp_path / "inbox")
    assert [file.name for file in inbox_files(tmp_path / "inbox")] == ["EXPORT.CSV"]


def test_another_file_of_the_same_name_is_taken_only_in_place_of_the_first_where_that_is_meant(tmp_path: Path) -> None:
    source = tmp_path / "export.csv"
    source.write_text("a\n1\n")
    put(source, tmp_path / "inbox")
    source.write_text("a\n2\n")
    with pytest.raises(InboxRefused, match=r"would be lost: give export\.csv another name, or --replace"):
        put(source, tmp_path / "inbox")
    (file,) = inbox_files(tmp_path / "inbox")
    assert file.read_text() == "a\n1\n"
    put(source, tmp_path / "inbox", replace=True)
    assert file.read_text() == "a\n2\n"


def test_a_copy_that_was_cut_short_is_not_seen(tmp_path: Path) -> None:
    source = tmp_path / "march.csv"
    source.write_text("a\n1\n")
    put(source, tmp_path / "inbox")
    (tmp_path / "inbox" / "march.csv").rename(tmp_path / "inbox" / ".march.csv.part")
    assert inbox_files(tmp_path / "inbox") == []


@pytest.mark.parametrize("name", ["march.xlsx", "march", "none.csv"])
def test_what_is_no_table_is_refused(tmp_path: Path, name: str) -> None:
    if name != "none.csv":
        (tmp_path / name).write_text("a\n1\n")
    with pytest.raises(InboxRefused, match=name):
        put(tmp_path / name, tmp_path / "inbox")
