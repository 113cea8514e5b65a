"""What the labels said at a moment, as the loop had it then."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import polars as pl

from mlops_assets.replay.known import KnownThen
from tests.replay.factories import day, history, midnight


def test_the_quality_of_a_day_is_that_of_its_version_and_not_of_the_canary_beside_it() -> None:
    recorded = history([0.0] * 2)
    answered = midnight(day(0)) - timedelta(hours=1)
    rows = [(f"p{n}", None, 1 + n % 2, "refund" if n % 2 else "query", "query", answered, answered) for n in range(40)]
    answers = pl.DataFrame(rows, schema=recorded.answers.schema, orient="row")
    known = KnownThen(replace(recorded, answers=answers))
    of_version_1 = known.quality(day(0), midnight(day(0)))
    assert (of_version_1.predictions, of_version_1.labels, of_version_1.accuracy) == (20, 20, 1.0)
    assert known.document(day(0), midnight(day(0)))["accuracy"] == 1.0
