"""What is old goes from the log, and nothing goes that was not read."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from mlops_assets.monitoring.predictions import join_labels, read_feedback, read_predictions
from mlops_assets.monitoring.retention import prune
from mlops_assets.settings import ModelHome
from tests.monitoring.test_predictions import label, log, prediction

TODAY = date(2026, 3, 31)
KEEP = timedelta(days=20)
OLD = "replica-20260301T120000000000"
NEW = "replica-20260311T000000000000"  # 20 days ago: not older
KNOWN = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> ModelHome:
    """Two predictions with labels and copies in an old segment each, and one of each in a newer one."""
    home = ModelHome(tmp_path)
    for segment, numbers in ((OLD, (1, 2)), (NEW, (3,))):
        log(home.predictions, *map(prediction, numbers), segment=segment)
        log(home.feedback, *(label(n, KNOWN) for n in numbers), segment=segment)
        log(home.shadow, *({"prediction_id": f"p{n}", "status": "ok"} for n in numbers), segment=segment)
    return home


def labelled(home: ModelHome, *, as_of: datetime = KNOWN) -> None:
    """Read the log, as the asset does."""
    rows = join_labels(read_predictions(home.predictions).rows, read_feedback(home.feedback).rows, as_of)
    home.labelled.mkdir(exist_ok=True)
    rows.write_parquet(home.labelled / "2026-03-01.parquet")


def left(home: ModelHome) -> list[str]:
    return [f"{path.parent.name} {path.stem}" for path in sorted(home.root.rglob("*.ndjson"))]


def test_what_is_older_and_was_read_goes_and_the_rest_stays(home: ModelHome) -> None:
    labelled(home)
    assert (len(prune(home, KEEP, TODAY).removed), prune(home, KEEP, TODAY).removed) == (3, ())
    assert left(home) == [f"feedback {NEW}", f"predictions {NEW}", f"shadow {NEW}"]
    assert pl.read_parquet(home.labelled / "2026-03-01.parquet").height == 3


def test_a_prediction_that_no_labelled_day_has_keeps_its_segment(home: ModelHome) -> None:
    labelled(home)
    log(home.predictions, prediction(1), prediction(9), segment=OLD)
    done = prune(home, KEEP, TODAY)
    assert [path.parent.name for path in done.waiting] == ["predictions"]
    assert f"predictions {OLD}" in left(home)


def test_the_label_of_a_prediction_that_waits_waits_with_it(home: ModelHome) -> None:
    labelled(home)
    log(home.predictions, prediction(1), prediction(9), segment=OLD)
    log(home.feedback, label(9, KNOWN), segment=OLD)
    assert [path.parent.name for path in prune(home, KEEP, TODAY).waiting] == ["predictions", "feedback"]


def test_a_label_that_was_not_joined_yet_keeps_its_segment(home: ModelHome) -> None:
    labelled(home, as_of=KNOWN - timedelta(hours=1))
    assert [path.parent.name for path in prune(home, KEEP, TODAY).waiting] == ["feedback"]


def test_a_correction_that_was_not_joined_keeps_its_segment(home: ModelHome) -> None:
    labelled(home)
    log(home.feedback, label(1, KNOWN), label(1, KNOWN + timedelta(days=15), "complaint"), segment=OLD)
    assert [path.parent.name for path in prune(home, KEEP, TODAY).waiting] == ["feedback"]
    labelled(home, as_of=KNOWN + timedelta(days=15))
    assert prune(home, KEEP, TODAY).waiting == ()


def test_what_no_labelled_day_will_ever_have_is_in_nobodys_way(home: ModelHome) -> None:
    labelled(home)
    aside = prediction(7, status="failed"), prediction(8, repeat=True), prediction(9, overridden=True)
    log(home.predictions, *aside, segment=OLD, torn='{"half\n')
    log(home.feedback, label(99, KNOWN), segment=OLD)
    assert prune(home, KEEP, TODAY).waiting == ()


def test_before_anything_was_labelled_nothing_with_an_answer_goes(home: ModelHome) -> None:
    prune(home, KEEP, TODAY)
    assert f"predictions {OLD}" in left(home)
