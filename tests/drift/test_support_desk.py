"""Ten real days of the same sources are quiet; ten days of other shops' messages alarm.

The model is a bag of words with logistic regression, so that no encoder has to be loaded; its softmax
outputs and predicted labels are judged as those of any other model.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import numpy as np
import polars as pl
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from mlops_assets.drift.profile import ReferenceProfile, Window, build_profile
from mlops_assets.drift.window import WindowDrift, judge_window
from mlops_assets.spec import DriftSpec
from mlops_assets.verdict import Verdict
from tests.drift.real_data import real_file


class Desk:
    """A small model of the history, its reference profile, and the days to judge."""

    def __init__(self) -> None:
        history = pl.read_parquet(real_file("support_desk/messages.parquet")).sort("event_timestamp")
        cut = int(len(history) * 0.8)
        past, held_out = history[:cut], history[cut:]
        words = TfidfVectorizer(sublinear_tf=True, min_df=2).fit(past["text"])
        self.classifier: Pipeline = make_pipeline(words, LogisticRegression(C=10, max_iter=300))
        self.classifier.fit(past["text"], past["label"])
        self.labels = tuple(self.classifier.classes_)
        self.profile: ReferenceProfile = build_profile(self.window(held_out), labels=self.labels)

    def window(self, rows: pl.DataFrame) -> Window:
        probabilities = self.classifier.predict_proba(rows["text"])
        predicted = np.array(self.labels)[probabilities.argmax(axis=1)]
        return Window(probabilities=probabilities, predicted=predicted)

    def days(self, name: str, first: date) -> Iterator[tuple[date, WindowDrift]]:
        traffic = pl.read_parquet(real_file(f"support_desk/{name}.parquet")).sort("event_timestamp")
        days = traffic.with_columns(day=pl.col("event_timestamp").dt.date()).filter(pl.col("day") >= first)
        for (day,), rows in days.group_by("day", maintain_order=True):
            if len(rows) >= DriftSpec().min_rows:
                yield day, judge_window(self.profile, self.window(rows), DriftSpec())


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk()


@pytest.mark.slow
def test_ten_in_domain_days_are_quiet(desk: Desk) -> None:
    days = list(desk.days("traffic_in_domain", date(2026, 4, 30)))
    assert len(days) == 10
    assert {day: drift.summary() for day, drift in days if not drift.verdict.ok} == {}


@pytest.mark.slow
def test_every_shifted_day_alarms(desk: Desk) -> None:
    days = list(desk.days("traffic_shifted", date(2026, 5, 10)))
    assert len(days) == 10
    assert {day: drift.summary() for day, drift in days if drift.verdict is not Verdict.FAIL} == {}
