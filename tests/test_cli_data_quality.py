"""`mlops data-quality` as it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlops_assets.data.ingest import write_days
from tests.data.factories import START, messages
from tests.test_cli import home, mlops, one_line

__all__ = ["home"]


@pytest.fixture(autouse=True)
def days(home: Path) -> Path:
    """A home with one validated day."""
    folder = home / "models" / "intent_classifier" / "validated"
    write_days(messages(10), [START], folder)
    return folder


def test_the_report_lies_where_people_expect_it_and_the_command_says_what_it_says() -> None:
    said = mlops("data-quality")
    assert said.exit_code == 0
    assert said.stdout == "10 messages keep the contract\nreport: reports/data_quality.html\n"
    assert "10 messages keep the contract" in Path("reports/data_quality.html").read_text()


def test_a_model_that_nobody_declared_is_refused() -> None:
    said = mlops("data-quality", "--model", "typo")
    assert (said.exit_code, one_line(said)) == (2, "error: no model typo is declared; there is: intent_classifier")


def test_a_stored_day_that_is_broken_is_named(days: Path) -> None:
    (days / "2026-03-02.parquet").write_bytes(b"no parquet")
    said = mlops("data-quality", "--output", "out.html")
    assert said.exit_code == 2
    assert str(days.parent) in one_line(said)
    assert not Path("out.html").exists()


def test_an_output_that_cannot_be_written_is_said_in_one_line() -> None:
    Path("taken").write_text("a file")
    said = mlops("data-quality", "--output", "taken/report.html")
    assert said.exit_code == 2
    assert "taken" in one_line(said)
    Path("folder").mkdir()
    said = mlops("data-quality", "--output", "folder")
    assert (said.exit_code, "is a directory" in said.stderr) == (2, True)
