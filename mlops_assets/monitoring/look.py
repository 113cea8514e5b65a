"""One look at production: what every monitor says of what is known at a moment.

Pure: the documents, answers and counts come from the caller, who may be looking now or looking again at a day long
past. Missing values are looked at on arrival, and the machine where it stands: both are the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from mlops_assets.monitoring.correctness import follow_correctness
from mlops_assets.monitoring.estimate import Estimate
from mlops_assets.monitoring.monitors import (
    UPPER_END,
    MonitorResult,
    correctness,
    estimated_f1,
    f1_drop,
    feature_shift,
    not_judged,
    prediction_mix,
)
from mlops_assets.monitoring.quality import Quality
from mlops_assets.monitoring.serving_monitors import latency, throughput
from mlops_assets.monitoring.traffic import Traffic
from mlops_assets.spec import MonitorSpec
from mlops_assets.verdict import Verdict

RECENT_DAYS = 10  # days of quality that are looked at
CONFIRMED_DAYS = 2  # drifted days in a row
_NO_DRIFT: dict[str, Any] = {"rows": 0, "groups": {"feature": {"verdict": Verdict.INSUFFICIENT_DATA, "results": []}}}
_NO_QUALITY: dict[str, Any] = {
    **dict.fromkeys(("accuracy", "f1_weighted", "f1_low", "f1_high", "reference_version", "estimate")),
    **dict.fromkeys(("predictions", "labels", "promised_f1", "promised_accuracy"), 0),
}


@dataclass(frozen=True)
class Known:
    """What is known of production at a moment.

    Attributes:
        at: the moment; labels known later do not count.
        quality: the quality documents of the last days that had answers, oldest first.
        answers: of the version that answered the last of them, as `correctness.follow_correctness` takes them.
        drift: the drift documents of the last `CONFIRMED_DAYS`, oldest first; fewer at the beginning.
        traffic: requests by the hour.
    """

    at: datetime
    quality: Sequence[Mapping[str, Any]]
    answers: pl.DataFrame
    drift: Sequence[Mapping[str, Any]]
    traffic: Traffic


def look(known: Known, spec: MonitorSpec, limits: Mapping[str, float]) -> dict[str, MonitorResult]:
    """What every monitor says, by name; `limits` has the score from which each one that may page does."""
    drift = known.drift[-1] if known.drift else _NO_DRIFT
    results = (
        *_of_answers(known, spec, limits),
        prediction_mix(drift),
        feature_shift(drift),
        latency(known.traffic, spec, limits["latency"]),
        throughput(known.traffic, spec, limits["throughput"]),
    )
    return {result.name: result for result in results}


def _of_answers(known: Known, spec: MonitorSpec, limits: Mapping[str, float]) -> Iterator[MonitorResult]:
    """Whether answers are as promised, of the version that answered last.

    F1 of its latest day with enough labels, correctness of its answers, and the F1 expected from confidences of the
    latest day. Of a version that no gate judged none can say, whatever the version before it did.
    """
    newest = known.quality[-1] if known.quality else _NO_QUALITY
    if newest["promised_f1"] is None:
        yield from (not_judged(name, newest["reference_version"]) for name in ("f1", "correctness", "estimated_f1"))
        return
    own = [day for day in known.quality if day["reference_version"] == newest["reference_version"]]
    labelled = next((day for day in reversed(own) if day["labels"] >= spec.min_labels), newest)
    floor = max(newest["promised_accuracy"] - spec.max_f1_drop, 0.0)
    followed = follow_correctness(known.answers, floor, as_of=known.at)
    expected = Estimate(**newest["estimate"]) if newest["estimate"] else None
    yield f1_drop(_quality_of(labelled), labelled["promised_f1"], spec, limits["f1"])
    yield correctness(followed, [*map(_quality_of, known.quality)], spec, limits["correctness"])
    yield estimated_f1(expected, newest["promised_f1"], spec, _limit_of_estimate(known, limits))


def _limit_of_estimate(known: Known, limits: Mapping[str, float]) -> float:
    """After drifted days in a row the upper end of what is expected decides whether the drift is worth a page."""
    confirmed = len(known.drift) == CONFIRMED_DAYS and all(day["verdict"] == Verdict.FAIL for day in known.drift)
    return UPPER_END if confirmed else limits["estimated_f1"]


def day_of(moment: datetime) -> date:
    """The day that a look at a moment speaks of: until an hour after midnight (UTC) the day before.

    >>> from datetime import UTC
    >>> day_of(datetime(2026, 5, 2, 0, 5, tzinfo=UTC)).isoformat()
    '2026-05-01'
    """
    return (moment - timedelta(hours=1)).date()


def _quality_of(day: Mapping[str, Any]) -> Quality:
    return Quality(**{field.name: day[field.name] for field in fields(Quality)})
