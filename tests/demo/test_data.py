"""The data of a demo: a folder in the documented format, the user's own or the embedded world's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from mlops_assets.data.tables import write_table
from mlops_assets.demo.data import FILES, DemoDataError, day_after, load_demo_data
from mlops_assets.simulation.world import generate, write_world
from mlops_assets.spec import ModelSpec
from tests.data.factories import REAL_DATA, START, events, messages

SPEC = ModelSpec(name="m")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A history of the days before, ordinary days 1 to 3, shifted days 3 and 4."""
    before = [START - timedelta(days=3) + timedelta(hours=n) for n in range(48)]
    known = [event + timedelta(hours=1) for event in before]
    history = messages(48, event_timestamp=before, label_timestamp=known, message_id=[f"h{n}" for n in range(48)])
    write_table(tmp_path / "messages.parquet", history)
    write_table(tmp_path / "traffic_in_domain.parquet", messages(72))
    write_table(tmp_path / "customer_events.parquet", events([("c1", 0.0, 2, 10.0, 0, 0.0)]))
    later = [START + timedelta(days=2, hours=n) for n in range(48)]
    shifted = messages(48, event_timestamp=later, label_timestamp=later, message_id=[f"s{n}" for n in range(48)])
    write_table(tmp_path / "traffic_shifted.parquet", shifted)
    return tmp_path


def days(*numbers: int) -> list[datetime]:
    return [datetime(2026, 3, number, tzinfo=UTC) for number in numbers]


def test_the_days_of_a_folder_are_ordinary_until_the_first_shifted_one(folder: Path) -> None:
    data = load_demo_data(folder, SPEC)
    assert data.ordinary_days == days(1, 2)
    assert data.shifted_days == days(3, 4)
    assert data.traffic.height == 120
    assert day_after(data.shifted_days[-1]) == days(5)[0]


def test_a_file_that_is_missing_is_named_with_the_format(folder: Path) -> None:
    (folder / "traffic_shifted.parquet").unlink()
    with pytest.raises(DemoDataError, match=r"lacks traffic_shifted\. A demo folder holds .*docs/data\.md"):
        load_demo_data(folder, SPEC)


@pytest.mark.parametrize("suffix", [".csv", ".ndjson"])
def test_a_folder_may_hold_any_format_that_can_be_ingested(folder: Path, suffix: str) -> None:
    before = load_demo_data(folder, SPEC)
    for name in FILES:
        rows = pl.read_parquet(folder / f"{name}.parquet").with_columns(pl.selectors.datetime().dt.to_string("%+"))
        (folder / f"{name}.parquet").unlink()
        write_table(folder / f"{name}{suffix}", rows)
    data = load_demo_data(folder, SPEC)
    assert data.traffic.equals(before.traffic)
    assert (data.messages.suffix, data.customer_events.suffix) == (suffix, suffix)


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        ("messages", messages(48).drop("label"), r"messages\.parquet: missing column label; the table has: "),
        (
            "messages",
            messages(48, label=["praise"] * 48),
            r"messages\.parquet: 48 of 48 rows .* break the data",
        ),
        ("messages", messages(48), r"messages\.parquet: 0 labelled rows at 0 distinct event times cannot be split"),
        ("customer_events", messages(48), r"customer_events\.parquet: missing column lines, qty, amount"),
    ],
)
def test_what_no_model_can_be_trained_on_is_refused_before_the_platform_starts(
    folder: Path, name: str, rows: pl.DataFrame, said: str
) -> None:
    write_table(folder / f"{name}.parquet", rows)
    with pytest.raises(DemoDataError, match=said):
        load_demo_data(folder, SPEC)


def test_bad_rows_are_not_sent_and_traffic_without_a_good_one_is_refused(folder: Path) -> None:
    write_table(folder / "traffic_in_domain.parquet", messages(3, text=["hi", "", "bye"]))
    assert load_demo_data(folder, SPEC).ordinary["text"].to_list() == ["hi", "bye"]
    write_table(folder / "traffic_in_domain.parquet", messages(3, label=["praise"] * 3))
    with pytest.raises(DemoDataError, match=r"traffic_in_domain\.parquet: no row keeps the data contract"):
        load_demo_data(folder, SPEC)


def test_a_file_that_is_no_table_is_refused_with_its_reason(folder: Path) -> None:
    (folder / "traffic_in_domain.parquet").write_bytes(b"PAR1")
    with pytest.raises(DemoDataError, match=r"traffic_in_domain\.parquet cannot be read as a table"):
        load_demo_data(folder, SPEC)


def test_shifted_traffic_without_ordinary_days_before_it_is_refused(folder: Path) -> None:
    (folder / "traffic_in_domain.parquet").write_bytes((folder / "traffic_shifted.parquet").read_bytes())
    with pytest.raises(DemoDataError, match=r"begins on 2026-03-03, and .* has no day before it"):
        load_demo_data(folder, SPEC)


@pytest.mark.slow
@pytest.mark.parametrize("world", ["embedded", "support desk"])
def test_both_worlds_have_the_days_that_the_story_needs(tmp_path: Path, world: str) -> None:
    if world == "embedded":
        write_world(tmp_path, generate())
        source = tmp_path
    elif REAL_DATA.exists():
        source = REAL_DATA
    else:
        pytest.skip(f"the real data is not at {REAL_DATA}")
    data = load_demo_data(source, SPEC)
    history = pl.read_parquet(source / "messages.parquet")["event_timestamp"].max()
    assert len(data.ordinary_days) == 10
    assert len(data.shifted_days) >= 8
    assert history < data.ordinary_days[0] + timedelta(days=1)
    assert data.ordinary_days[-1] < data.shifted_days[0]
