"""The logs as tables: every answered prediction once, with the labels that were known at a time."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.data.tables import MESSAGE_SCHEMA
from mlops_assets.monitoring.predictions import (
    first_event,
    join_labels,
    read_feedback,
    read_predictions,
    read_requests,
    relabel,
    requests_per_second,
    unmatched,
)

ARRIVED = datetime(2026, 3, 1, 12, tzinfo=UTC)


def prediction(number: int, **changes: Any) -> dict[str, Any]:
    """One record as the endpoint writes it."""
    return {
        "prediction_id": f"p{number}",
        "model": "m",
        "version": 1,
        "arm": "stable",
        "rollout_id": None,
        "event_timestamp": ARRIVED.isoformat(),
        "received_at": ARRIVED.isoformat(),
        "customer_id": "c1",
        "text": "where is my order",
        "label": "order_status",
        "confidence": 0.9,
        "probabilities": [0.9, 0.1],
        "features": {"orders_90d": 2.0},
        "features_source": "online",
        "latency_ms": 4.2,
        "status": "ok",
        "error": None,
        "repeat": False,
        **changes,
    }


def label(number: int, known: datetime, said: str = "refund") -> dict[str, Any]:
    return {
        "prediction_id": f"p{number}",
        "label": said,
        "label_timestamp": known.isoformat(),
        "received_at": known.isoformat(),
    }


def log(folder: Path, *records: dict[str, Any], segment: str = "replica-1", torn: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / f"{segment}.ndjson").write_text(lines + torn)
    return folder


def test_a_prediction_comes_back_as_it_was_logged(tmp_path: Path) -> None:
    (row,) = read_predictions(log(tmp_path, prediction(1))).rows.to_dicts()
    assert row["predicted"] == "order_status"
    assert "label" not in row
    assert (row["event_timestamp"], row["probabilities"]) == (ARRIVED, [0.9, 0.1])
    assert json.loads(row["features"]) == {"orders_90d": 2.0}


def test_times_of_any_zone_are_brought_to_utc(tmp_path: Path) -> None:
    rows = read_predictions(log(tmp_path, prediction(1, event_timestamp="2026-03-01T14:00:00+02:00"))).rows
    assert rows["event_timestamp"].to_list() == [ARRIVED]


def test_the_segments_of_all_replicas_are_one_log(tmp_path: Path) -> None:
    log(tmp_path, prediction(1), segment="a")
    log(tmp_path, prediction(2), segment="b")
    assert read_predictions(tmp_path).rows["prediction_id"].to_list() == ["p1", "p2"]


def test_a_log_that_nobody_wrote_yet_is_an_empty_table(tmp_path: Path) -> None:
    predictions, feedback = read_predictions(tmp_path / "none"), read_feedback(tmp_path / "none")
    assert predictions.rows.is_empty()
    assert join_labels(predictions.rows, feedback.rows, ARRIVED).is_empty()


@pytest.mark.parametrize("torn", ['{"prediction_id":"p3","te', "\x00\x00\x00", '"p3"', "3"])
def test_a_line_that_no_process_finished_is_counted_and_the_others_stand(tmp_path: Path, torn: str) -> None:
    logged = read_predictions(log(tmp_path, prediction(1), prediction(2), torn=torn))
    assert logged.rows.height == 2
    assert logged.torn == 1


LINES = st.one_of(
    st.builds(
        lambda number, text, share, whole, times: json.dumps(
            prediction(number, text=text, probabilities=[share, 1], latency_ms=whole, features={"spend": share})
            | dict.fromkeys(("event_timestamp", "received_at"), times),
            ensure_ascii=not number,
            separators=(",", ":") if number % 2 else None,
        ),
        st.integers(0, 3),
        st.text(st.characters(exclude_categories=("Cs",))),
        st.floats(allow_nan=False, allow_infinity=False),
        st.integers(0, 1000),
        st.sampled_from(["2026-03-01T12:00:00Z", "2026-03-01T14:00:00.123456+02:00"]),
    ),
    st.sampled_from(
        [
            *(
                "",
                "   ",
                "3",
                "null",
                "[1]",
                '"p3"',
                '{"prediction_id":"p3","te',
                "\x00\x00",
                '{"a":1}{"a":2}',
                "{NaN}",
            ),
            *('{"foreign": {"b": [1]}}', '{"prediction_id": "p9", "features": {"a": "}", "b": {"c": null}}}'),
        ]
    ),
)


def is_record(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


@pytest.mark.slow
@given(st.lists(LINES, max_size=8))
def test_whatever_stands_between_them_every_record_comes_back_the_same(lines: list[str]) -> None:
    with TemporaryDirectory() as folder:
        logged = read_requests(log(Path(folder), torn="\n".join(lines)))
        beside_a_torn_line = read_requests(log(Path(folder), torn="\n".join([*lines, "{"])))
    records = [json.loads(line) for line in filter(is_record, lines)]
    assert logged.rows["prediction_id"].to_list() == list(dict.fromkeys(r.get("prediction_id") for r in records))
    first = {record.get("prediction_id"): record for record in reversed(records)}
    for name in ("text", "probabilities", "latency_ms"):
        assert logged.rows[name].to_list() == [first[i].get(name) for i in logged.rows["prediction_id"]]
    assert [*map(json.loads, logged.rows["features"])] == [
        first[i].get("features") for i in logged.rows["prediction_id"]
    ]
    assert logged.torn == sum(bool(line.strip()) for line in lines) - len(records)
    assert beside_a_torn_line.rows.equals(logged.rows)
    assert beside_a_torn_line.torn == logged.torn + 1


def test_a_long_log_comes_back_whole_and_in_order(tmp_path: Path) -> None:
    half = [prediction(number, text="x" * 500) for number in range(4_000)]
    log(tmp_path, *half, segment="a", torn='{"prediction_id":"p')
    log(tmp_path, *(prediction(number) for number in range(4_000, 8_000)), segment="b")
    logged = read_requests(tmp_path)
    assert logged.rows["prediction_id"].to_list() == [f"p{number}" for number in range(8_000)]
    assert logged.torn == 1


def test_segments_of_days_before_those_that_are_asked_for_are_passed_over(tmp_path: Path) -> None:
    names = ("a-20260228T230000000000", "a-20260301T000000000000", "b-20260302T000000000000", "no-day")
    for number, name in enumerate(names):
        log(tmp_path / "predictions", prediction(number), segment=name)
        log(tmp_path / "feedback", label(number, ARRIVED), segment=name)
    for read, folder in ((read_requests, "predictions"), (read_feedback, "feedback")):
        assert read(tmp_path / folder, since=ARRIVED.date()).rows["prediction_id"].to_list() == ["p1", "p2", "p3"]
        assert read(tmp_path / folder).rows.height == 4


def test_messages_sent_again_those_of_testers_and_failures_are_left_out(tmp_path: Path) -> None:
    failed = prediction(3, status="failed", error="out of memory", label=None, confidence=None, probabilities=None)
    aside = prediction(2, repeat=True), prediction(4, overridden=True)
    rows = read_predictions(log(tmp_path, prediction(1), *aside, failed)).rows
    assert rows["prediction_id"].to_list() == ["p1"]


def test_the_requests_have_failures_and_repeats_too_and_what_each_counted_for(tmp_path: Path) -> None:
    failed = prediction(3, status="failed", error="out of memory", label=None, counted="stable")
    canary = prediction(4, arm="canary", counted="canary", version_ms=3.5)
    rows = read_requests(log(tmp_path, prediction(1), prediction(2, repeat=True), failed, canary)).rows
    assert rows["prediction_id"].to_list() == ["p1", "p2", "p3", "p4"]
    assert rows["counted"].to_list() == [None, None, "stable", "canary"]
    assert rows["version_ms"].to_list() == [None, None, None, 3.5]


def test_a_prediction_that_was_logged_twice_counts_once(tmp_path: Path) -> None:
    assert read_predictions(log(tmp_path, prediction(1), prediction(1))).rows.height == 1


def test_a_label_may_stand_in_the_log_before_its_prediction(tmp_path: Path) -> None:
    feedback = read_feedback(log(tmp_path / "feedback", label(1, ARRIVED))).rows
    none_yet = read_predictions(tmp_path / "predictions").rows
    assert unmatched(none_yet, feedback) == 1
    came = read_predictions(log(tmp_path / "predictions", prediction(1))).rows
    assert unmatched(came, feedback) == 0
    assert join_labels(came, feedback, ARRIVED)["label"].to_list() == ["refund"]


def test_a_late_label_is_null_until_it_was_known(tmp_path: Path) -> None:
    known = ARRIVED + timedelta(days=3)
    predictions = read_predictions(log(tmp_path / "predictions", prediction(1), prediction(2))).rows
    feedback = read_feedback(log(tmp_path / "feedback", label(1, known))).rows
    before = join_labels(predictions, feedback, known - timedelta(microseconds=1))
    assert before["label"].to_list() == before["label_timestamp"].to_list() == [None, None]
    after = join_labels(predictions, feedback, known)
    assert after["label"].to_list() == ["refund", None]


def test_of_several_labels_the_one_known_last_counts_as_known_then(tmp_path: Path) -> None:
    corrected = ARRIVED + timedelta(days=2)
    predictions = read_predictions(log(tmp_path / "predictions", prediction(1))).rows
    feedback = read_feedback(log(tmp_path / "feedback", label(1, corrected, "complaint"), label(1, ARRIVED))).rows
    assert join_labels(predictions, feedback, corrected)["label"].to_list() == ["complaint"]
    assert join_labels(predictions, feedback, ARRIVED)["label"].to_list() == ["refund"]


def test_labelled_predictions_can_train_a_model(tmp_path: Path) -> None:
    predictions = read_predictions(log(tmp_path / "predictions", prediction(1))).rows
    feedback = read_feedback(log(tmp_path / "feedback", label(1, ARRIVED))).rows
    rows = join_labels(predictions, feedback, ARRIVED)
    assert dict(rows.select(list(MESSAGE_SCHEMA)).schema) == MESSAGE_SCHEMA
    assert rows["message_id"].to_list() == ["p1"]


def test_the_first_event_is_the_earliest_of_any_segment(tmp_path: Path) -> None:
    assert first_event(tmp_path) is None
    log(tmp_path, segment="a")  # opened, nothing written yet
    assert first_event(tmp_path) is None
    log(tmp_path, prediction(1), segment="b")
    log(tmp_path, prediction(2, event_timestamp="2026-02-27T10:00:00+00:00"), segment="c", torn='{"pred')
    assert first_event(tmp_path) == datetime(2026, 2, 27, 10, tzinfo=UTC)


def test_traffic_is_what_came_in_the_last_hour_or_since_the_first_request(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    assert requests_per_second(tmp_path, now) == 0.0

    def arrivals(minutes: int, count: int) -> list[dict[str, Any]]:
        return [prediction(n, received_at=(now - timedelta(minutes=minutes)).isoformat()) for n in range(count)]

    young = log(tmp_path / "young", *arrivals(10, 300), *arrivals(1, 300), torn="{half")
    assert requests_per_second(young, now) == pytest.approx(1.0)
    old = log(tmp_path / "old", *arrivals(90, 5_000), *arrivals(30, 360))
    assert requests_per_second(old, now) == pytest.approx(0.1)
    assert requests_per_second(log(tmp_path / "past", *arrivals(90, 5_000)), now) == 0.0


def test_answers_that_the_log_no_longer_has_keep_their_labels_and_take_later_ones(tmp_path: Path) -> None:
    predictions = read_predictions(log(tmp_path / "predictions", *map(prediction, (1, 2, 3, 4)))).rows
    feedback = read_feedback(log(tmp_path / "feedback", label(1, ARRIVED), label(2, ARRIVED))).rows
    before = join_labels(predictions, feedback, ARRIVED)
    left, none = predictions.filter(pl.col("prediction_id") == "p4"), feedback.clear()
    gone = before.filter(pl.col("message_id") != "p4")
    assert relabel(before, predictions, feedback, ARRIVED).is_empty()
    assert relabel(before, left, none, ARRIVED).equals(gone)
    late = ARRIVED + timedelta(days=60)
    came = read_feedback(log(tmp_path / "feedback", label(1, late, "complaint"), label(3, late))).rows
    assert relabel(before, left, came, ARRIVED).equals(gone)
    assert relabel(before, left, came, late)["label"].to_list() == ["complaint", "refund", "refund"]
