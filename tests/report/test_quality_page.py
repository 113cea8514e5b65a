"""The data-quality report: what a model's home holds, counted and drawn, with nothing of it trusted."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from mlops_assets.data.ingest import read_messages, set_aside, write_days, write_quarantine
from mlops_assets.data.tables import write_table
from mlops_assets.monitoring.windows import write_window
from mlops_assets.report.quality_page import write_quality_page
from mlops_assets.report.shapes import Band
from mlops_assets.report.stored_data import DAYS_SHOWN, read_stored
from mlops_assets.settings import ModelHome
from mlops_assets.spec import ModelSpec
from tests.data.factories import START, messages
from tests.report.reader import HOSTILE, Reader, assert_self_contained

SPEC = ModelSpec(name="intents")


@pytest.fixture
def home(tmp_path: Path) -> ModelHome:
    return ModelHome(tmp_path / "intents")


def ingest(home: ModelHome, frame: pl.DataFrame, name: str = "history.parquet") -> None:
    """What the graph does with a file of messages."""
    write_table(home.incoming / "messages" / name, frame)
    inbox = read_messages(home.incoming / "messages", SPEC.data, START + timedelta(days=365))
    set_aside(inbox.rejected, home.quarantine)
    write_quarantine(inbox, home.quarantine)
    good = inbox.good()
    if good is not None:
        days = good["event_timestamp"].dt.truncate("1d").unique().to_list()
        write_days(good, days, home.validated)


def report(home: ModelHome) -> Reader:
    return Reader(write_quality_page(home, SPEC).read_text())


def test_an_empty_home_says_what_to_do(home: ModelHome) -> None:
    page = report(home)
    assert "No data has come in yet" in page.words
    assert "mlops ingest --messages FILE" in page.words
    assert_self_contained(page)


def test_days_labels_lengths_delays_and_missing_values_are_counted(home: ModelHome) -> None:
    labels = ["refund", "query", None, "query"] * 18
    known = [START + timedelta(hours=h + 12) if label else None for h, label in enumerate(labels)]
    customers = [None] * 12 + ["c1"] * 60
    ingest(home, messages(72, label=labels, label_timestamp=known, customer_id=customers, text=["ab"] * 72))
    stored = read_stored(home)
    assert (stored.rows, stored.labelled, stored.first, stored.last) == (72, 54, "2026-03-01", "2026-03-03")
    assert stored.days is not None
    assert stored.days.labels == {"query": (12, 12, 12), "refund": (6, 6, 6), "not known yet": (6, 6, 6)}
    assert stored.days.lengths == (Band(2.0, 2.0, 2.0),) * 3
    assert stored.days.delays == (Band(0.5, 0.5, 0.5),) * 3
    assert stored.days.missing == {
        "customer_id": (0.5, 0.0, 0.0),
        "label": (0.25, 0.25, 0.25),
        "label_timestamp": (0.25, 0.25, 0.25),
    }
    page = report(home)
    assert "72 messages keep the contract" in page.words
    assert "Labels known 75 % typically after 12 hours" in page.words
    assert ("title", "2026-03-01: 50 % missing") in page.attributes


def test_a_day_without_messages_is_a_gap_and_old_days_are_left_out(home: ModelHome) -> None:
    far = [START, START + timedelta(days=2), START + timedelta(days=2), START + timedelta(days=200)]
    ingest(home, messages(4, event_timestamp=far, label_timestamp=[day + timedelta(days=1) for day in far]))
    stored = read_stored(home)
    assert stored.rows == 4
    assert stored.days is not None
    assert len(stored.days.names) == DAYS_SHOWN
    assert stored.days.lengths[-2] is None
    assert sum(stored.days.labels["order_status"]) == 1


def test_quarantine_is_shown_by_check_and_day_with_examples(home: ModelHome) -> None:
    texts: list[str | None] = [*[f"order {n}" for n in range(96)], "", None, "x" * 9999, f"{HOSTILE} {'y' * 600}"]
    ingest(home, messages(100, text=texts))
    quarantine = read_stored(home).quarantine
    assert quarantine.rows == 4
    assert quarantine.by_check == (("length", 3), ("present", 1))
    assert quarantine.by_day == (("2026-03-05",), {"length": (3,), "present": (1,)})
    page = report(home)
    assert "96 messages keep the contract; 4 were set aside" in page.words
    assert "The most frequent fault is length (3)." in page.words
    assert "history.parquet 96 text length must have 1 to 512 characters, not all of them blank (empty)" in page.words
    assert "present is missing (missing)" in page.words
    assert f"{'x' * 140}… (9,999 characters)" in page.words
    assert HOSTILE in page.text
    assert_self_contained(page)


def test_too_many_bad_rows_are_said_in_the_headline(home: ModelHome) -> None:
    ingest(home, messages(10, label=["praise"] * 2 + ["refund"] * 8))
    assert "20 % of the rows break the contract, more than the 5 % allowed" in report(home).words


def test_faults_whose_time_cannot_be_read_are_counted_apart(home: ModelHome) -> None:
    times = [moment.isoformat() for moment in messages(10)["event_timestamp"]]
    ingest(home, messages(10, event_timestamp=[*times[:9], "yesterday"]), "march.csv")
    assert read_stored(home).quarantine.by_day == (("no readable time",), {"readable": (1,)})
    assert "is not a time with a time zone" in report(home).words


def test_a_mistyped_year_hides_no_fault_of_another_day(home: ModelHome) -> None:
    times = [*[START + timedelta(hours=n) for n in range(9)], START.replace(year=2062)]
    ingest(home, messages(10, event_timestamp=times, label_timestamp=times, text=["", *["ab"] * 9]))
    days, faults = read_stored(home).quarantine.by_day
    assert days == ("2026-03-01", "in the future")
    assert faults == {"length": (1, 0), "not_in_the_future": (0, 1)}


def test_a_file_that_is_no_table_is_listed_with_its_reason(home: ModelHome) -> None:
    torn = home.incoming / "messages" / "torn.csv"
    torn.parent.mkdir(parents=True)
    torn.write_text("a,b\n1,2,3\n")
    ingest(home, messages(10))
    page = report(home)
    assert "1 file could not be read as a table." in page.words
    assert "line 2 has 3 fields, the header has 2" in page.words


def test_windows_of_drift_and_quality_are_shown_day_by_day(home: ModelHome) -> None:
    ingest(home, messages(10))
    for day, verdict, effect in ((1, "pass", 0.05), (2, "fail", 0.5)):
        results = [{"column": "text_length", "statistic_name": "kolmogorov_smirnov", "effect": effect}]
        groups = {"feature": {"verdict": verdict, "results": results}}
        document = {"verdict": verdict, "rows": 100, "summary": f"feature: {verdict}", "groups": groups}
        write_window(home.windows, "drift", START + timedelta(days=day), document)
        f1 = {"f1_weighted": 0.9, "f1_low": 0.85, "f1_high": 0.95, "message": "weighted F1 0.900"}
        write_window(home.windows, "quality", START + timedelta(days=day), {"verdict": verdict, **f1})
    linked = home.reports / "drift" / "2026-03-03.html"
    linked.parent.mkdir(parents=True)
    linked.write_text("the day's report")
    page = report(home)
    assert "Drift on 2026-03-03: feature: fail." in page.words
    assert ("title", "2026-03-03: 2.5 × the limit") in page.attributes
    assert ("title", "2026-03-03: drift") in page.attributes
    assert ("title", "2026-03-03: below what the gate promised") in page.attributes
    assert "Realised F1" in page.words
    assert ("href", "drift/2026-03-03.html") in page.attributes


def test_a_report_is_the_same_whenever_it_is_made(home: ModelHome) -> None:
    ingest(home, messages(30))
    first = write_quality_page(home, SPEC).read_bytes()
    assert write_quality_page(home, SPEC).read_bytes() == first


def test_more_labels_than_colours_are_drawn_together(home: ModelHome) -> None:
    labels = tuple(f"label {n}" for n in range(20))
    spec = ModelSpec(name="intents", data={"labels": labels})
    good = messages(40, label=[labels[n % 20] for n in range(40)])
    write_days(good, [START, START + timedelta(days=1)], home.validated)
    assert "14 others" in Reader(write_quality_page(home, spec).read_text()).words
