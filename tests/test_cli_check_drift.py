"""`mlops check-drift` as it is called on files of all kinds: exit 0 quiet, 1 drift, 2 could not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import Result

from mlops_assets.data.tables import write_table
from tests.report.factories import shop
from tests.test_cli import mlops, one_line

DEFS = "type: t\nattributes:\n  name: m\n  drift:\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the month of May as `may.parquet`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlops_assets.cli.console.width", 200, raising=False)
    put("may.parquet", 0)
    return tmp_path


def put(name: str, seed: int = 1, **columns: Any) -> str:
    write_table(Path(name), shop(name, seed, **columns).frame)
    return name


def check(current: str, *more: str, reference: str = "may.parquet") -> Result:
    return mlops("check-drift", "--reference", reference, "--current", current, *more)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "ndjson"])
def test_a_quiet_month_of_any_format_exits_0(suffix: str) -> None:
    said = check(put(f"june.{suffix}"))
    assert said.exit_code == 0, said.stdout
    assert said.stdout.startswith("No drift in 4 columns")
    assert "order_id: an identifier" in said.stdout


def test_a_drifted_month_exits_1_and_says_what_changed() -> None:
    said = check(put("june.csv", country=["DE"] * 400))
    assert said.exit_code == 1
    assert said.stdout.startswith("1 of 4 columns drifted, country most")
    (line,) = (line for line in said.stdout.splitlines() if line.startswith("country"))
    assert line.split()[1] == "drift"
    assert line.rstrip().endswith("DE: 8.5 % → 100 %")


def test_a_machine_gets_every_figure_as_json() -> None:
    said = check(put("june.parquet", country=["DE"] * 400), "--json")
    assert said.exit_code == 1
    document = json.loads(said.stdout)
    assert document["verdict"] == "fail"
    assert document["alpha"] == 0.05
    assert document["reference"] == {"name": "may.parquet", "rows": 400}
    first = document["columns"][0]
    assert (first["column"], first["verdict"]) == ("country", "fail")
    assert {r["statistic_name"] for r in first["results"]} == {"chi_squared", "psi", "unseen", "missing"}
    assert {column["column"] for column in document["not_compared"]} == {"order_id", "note", "event_timestamp"}


def test_five_rows_cannot_be_judged_and_exit_2() -> None:
    put("june.parquet")
    write_table(Path("few.parquet"), pl.read_parquet("june.parquet").head(5))
    said = check("few.parquet")
    assert said.exit_code == 2
    assert "Could not say: too little data in 4 of 4 columns" in said.stdout
    assert "needs 30 rows on both sides, has 400 and 5" in said.stdout


def test_another_schema_exits_2_and_names_the_columns() -> None:
    frame = shop("june", 1).frame.drop("spend").with_columns(pl.lit("app").alias("channel"))
    write_table(Path("june.parquet"), frame)
    said = check("june.parquet")
    assert said.exit_code == 2
    assert "Could not say: 2 columns could not be compared" in said.stdout
    assert "is in may.parquet only; add it to june.parquet, or leave it out with --ignore spend" in said.stdout
    assert check("june.parquet", "--ignore", "spend", "--ignore", "channel").exit_code == 0


def test_words_where_the_reference_holds_numbers_exit_2() -> None:
    said = check(put("june.csv", lines=["many"] * 400))
    assert said.exit_code == 2
    assert "column lines: the reference holds numbers, the window does not" in said.stdout


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.csv", None, "No such file"),
        ("empty.csv", b"", "it is empty"),
        ("broken.csv", b"a,b\n1,2\n3,4,5\n", "line 3 has 3 fields, the header has 2"),
        ("noise.parquet", b"\x00\x01 this is no table", "it is broken or cut short"),
        ("june.xlsx", b"PK", "the suffix must be one of .csv, .jsonl, .ndjson, .parquet"),
        ("other.csv", b"a,b\n1,2\n", "no column in common"),
    ],
)
def test_a_file_that_cannot_be_used_exits_2_with_one_line_that_says_why(
    name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    answer = check(name)
    assert answer.exit_code == 2
    assert name in one_line(answer)
    assert said in one_line(answer)
    told = json.loads(check(name, "--json").stdout)
    assert told["verdict"] == "error"
    assert said in told["summary"]


def test_the_threshold_is_the_error_rate_of_the_whole_comparison() -> None:
    june = put("june.parquet", country=np.random.default_rng(1).choice(["NL", "BE", "DE"], 400, p=[0.5, 0.2, 0.3]))
    Path("defs.yaml").write_text(f"{DEFS}    ks_effect: 0.01\n    psi: 0.01\n    alpha: 0.2\n")
    strict, spec = ("--threshold", "1e-30", "--spec", "defs.yaml"), ("--spec", "defs.yaml")
    assert check(june, *spec).exit_code == 1
    assert check(june, *strict).exit_code == 0
    assert json.loads(check(june, *spec, "--json").stdout)["alpha"] == 0.2
    assert json.loads(check(june, *strict, "--json").stdout)["alpha"] == 1e-30


@pytest.mark.parametrize("threshold", ["0", "1", "5"])
def test_a_threshold_that_is_no_error_rate_is_refused(threshold: str) -> None:
    said = check(put("june.parquet"), "--threshold", threshold)
    assert (said.exit_code, one_line(said)) == (
        2,
        f"error: --threshold {threshold} is no error rate: give one between 0 and 1",
    )


def test_a_spec_with_a_mistake_is_refused_with_its_line() -> None:
    Path("defs.yaml").write_text(f"{DEFS}    ks_efect: 0.1\n")
    said = check(put("june.parquet"), "--spec", "defs.yaml")
    assert said.exit_code == 2
    assert "defs.yaml:5: drift.ks_efect: unknown field" in one_line(said)


def test_the_report_is_written_where_it_was_asked_for() -> None:
    said = check(put("june.parquet"), "--output", "out/drift.html")
    assert said.exit_code == 0
    assert "report: out/drift.html" in said.stdout
    assert "No drift in 4 columns" in Path("out/drift.html").read_text()


def test_names_of_others_do_not_steer_the_terminal() -> None:
    for name, seed in (("a.parquet", 0), ("b.parquet", 1)):
        write_table(Path(name), shop(name, seed).frame.rename({"country": "[red]x\x1b[2J"}))
    said = check("b.parquet", reference="a.parquet")
    assert said.exit_code == 0
    assert "[red]x�[2J" in said.stdout


def test_two_files_of_one_name_are_told_apart_by_their_folders() -> None:
    Path("june").mkdir()
    said = check(put("june/may.parquet"))
    assert "june/may.parquet (400 rows) against may.parquet (400 rows)" in said.stdout
