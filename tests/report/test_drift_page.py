"""The drift report: one file that says the verdict in words, shows the plots, and trusts no name."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mlops_assets.drift.profile import Window, build_profile
from mlops_assets.drift.window import judge_window
from mlops_assets.report.comparison import Table, compare
from mlops_assets.report.drift_page import comparison_page, write_day_page
from mlops_assets.settings import ModelHome
from mlops_assets.spec import DriftSpec
from tests.report.factories import shop
from tests.report.reader import HOSTILE, Reader, assert_self_contained

SPEC = DriftSpec(alpha=0.05)


def report(current: Table) -> Reader:
    return Reader(comparison_page(compare(shop("may", 0), current, SPEC)))


def test_a_quiet_comparison_says_so_and_states_its_error_rate() -> None:
    page = report(shop("june", 1))
    assert "No drift in 4 columns" in page.words
    assert "may 400 rows" in page.words
    assert "june 400 rows" in page.words
    assert "at most 5 % of such comparisons would say drift" in page.words
    assert page.tags.count("svg") >= 4
    assert_self_contained(page)


def test_drift_is_said_shown_and_ranked() -> None:
    page = report(shop("june", 1, country=["DE"] * 400))
    assert "1 of 4 columns drifted, country most" in page.words
    assert "Most of all: country (DE: 8.5 % → 100 %)." in page.words
    ranking = page.words[page.words.index("How far each column moved") :]
    assert ranking.index("country") < ranking.index("spend")
    assert "week by week of event_timestamp" in page.words
    assert re.search(r"country chi-squared [\d.]+ < 1e-15 [\d.]+ 0.2 400 drift", page.words)


def test_too_little_data_is_said_and_nothing_is_drawn_that_was_not_judged() -> None:
    page = report(Table("june", shop("june", 1).frame.head(12)))
    assert "Could not say: too little data in 4 of 4 columns" in page.words
    assert "needs 30 rows on both sides, has 400 and 12" in page.words
    assert "How far each column moved" not in page.words
    assert "Over time" not in page.words


def test_what_is_not_compared_is_listed_with_its_reason() -> None:
    words = report(shop("june", 1)).words
    assert "order_id an identifier: 400 of 400 values are distinct" in words


def test_names_and_categories_of_others_stay_text() -> None:
    frames = [shop(name, seed).frame.rename({"country": HOSTILE}) for name, seed in (("may", 0), ("june", 1))]
    tables = [Table(HOSTILE, frame.with_columns(pl.lit(HOSTILE).alias("shop"))) for frame in frames]
    page = Reader(comparison_page(compare(tables[0], tables[1], SPEC)))
    assert HOSTILE in page.text
    assert_self_contained(page)


def test_a_report_is_the_same_whenever_it_is_made() -> None:
    found = compare(shop("may", 0), shop("june", 1), SPEC)
    assert comparison_page(found) == comparison_page(found)


def test_infinite_values_and_constants_are_drawn_too() -> None:
    odd = [np.inf, -np.inf, np.nan, 1.0] * 100
    page = report(shop("june", 1, spend=odd, lines=[3] * 400, country=[None] * 400))
    assert "country (missing: 0 % → 100 %)" in page.words


@pytest.fixture
def home(tmp_path: Path) -> ModelHome:
    return ModelHome(tmp_path / "intents")


def observed(seed: int, rows: int = 300) -> Window:
    rng = np.random.default_rng(seed)
    return Window(
        features={"text_length": rng.gamma(3, 20, rows)},
        probabilities=rng.dirichlet([2, 1, 1], rows),
        predicted=rng.choice(["query", "refund", HOSTILE], rows),
        embeddings=rng.normal(size=(rows, 4)),
    )


def test_a_day_of_a_model_has_its_report_with_the_days_before_it(home: ModelHome) -> None:
    profile = build_profile(
        observed(0), labels=("query", "refund", HOSTILE), about={"snapshot_digest": "05c1a785fc90" + "0" * 52}
    )
    window = observed(1)
    drift = judge_window(profile, window, DriftSpec())
    results = [{"column": "*", "statistic_name": "mmd", "effect": 0.05}]
    documents = [
        {"day": f"2026-05-{day:02}", "rows": 300, "verdict": "pass", "groups": {"embedding": {"results": results}}}
        for day in (10, 11, 12, 13)
    ]
    path = write_day_page(home, datetime(2026, 5, 12, tzinfo=UTC), profile, window, drift, DriftSpec(), documents)
    assert path == home.reports / "drift" / "2026-05-12.html"
    page = Reader(path.read_text())
    assert "intents · Tuesday, 12 May 2026" in page.words
    assert "No drift in 4 columns" in page.words
    assert re.search(r"softmax outputs quiet probability of \S+: median: ", page.words)
    assert "snapshot 05c1a785fc90 300 held-out rows" in page.words
    assert ("title", "2026-05-11: 1.6 × the limit") in page.attributes  # a day before, from its document
    today = [value for name, value in page.attributes if name == "title" and value.startswith("2026-05-12: ")]
    assert len(today) == 4  # this day, as it was judged just now
    assert "2026-05-13" not in page.words  # as it was known then
    assert_self_contained(page)
