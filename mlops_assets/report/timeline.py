"""How strongly each column differs from the reference, moment by moment.

From the rows of a comparison, cut by their time, or from the documents of the days that a model has lived
through. A moment only shows: no verdict is drawn from it beyond the one its day got.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_assets.data.tables import UTC_TIME
from mlops_assets.drift.profile import build_profile
from mlops_assets.drift.window import WindowDrift, judge_window
from mlops_assets.report.comparison import SCHEMA, Comparison, to_window
from mlops_assets.report.roles import Kind, is_time
from mlops_assets.report.stories import shown_name, strength
from mlops_assets.spec import DriftSpec
from mlops_assets.verdict import Verdict

DAYS_SHOWN = 45
MOST_MOMENTS = 40
REFERENCE_ROWS = 20_000  # drawn, where there are more: enough for the eye, and the cost stays bounded
_UNITS = {"1h": "hour", "1d": "day", "1w": "week", "1mo": "month", "1q": "quarter", "1y": "year"}
_PREFERRED = "event_timestamp"


@dataclass(frozen=True)
class Moment:
    """One stretch of time.

    Attributes:
        label: when it began.
        rows: its rows.
        strengths: by column, as `stories.strength`; a column that could not be judged is absent.
        verdict: of the day, where the day was judged as such.
    """

    label: str
    rows: int
    strengths: Mapping[str, float]
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Timeline:
    """Moments in order; `unit` is how long one is, `clock` by which column they were cut."""

    unit: str
    clock: str
    moments: tuple[Moment, ...]


def over_rows(comparison: Comparison) -> Timeline | None:
    """Cut the current rows by time and compare each stretch with the reference.

    Where several columns are times, `event_timestamp` goes first, then the first one in the table. None where no
    column is, or where no cut gives stretches of rows enough to judge.
    """
    clocks = [role.column for role in comparison.roles if role.kind is Kind.TIME]
    frame = comparison.current.frame
    clock = _PREFERRED if _PREFERRED in clocks else next(iter(clocks), None)
    if clock is None or not is_time(frame[clock].dtype):
        return None
    times = frame[clock].cast(UTC_TIME)
    most = len(times) / comparison.spec.min_rows / 2  # so that a typical stretch can be judged
    unit = next((u for u in _UNITS if times.dt.truncate(u).n_unique() <= min(most, MOST_MOMENTS)), None)
    if unit is None:
        return None
    reference = comparison.reference.frame
    sample = reference.sample(REFERENCE_ROWS, seed=0) if reference.height > REFERENCE_ROWS else reference
    profile = build_profile(to_window(sample, comparison.roles))
    moments = []
    for (start,), rows in frame.group_by(times.dt.truncate(unit).alias("__start")):
        if start is not None:
            label = f"{start:%Y-%m-%d %H:%M}" if unit == "1h" else f"{start:%Y-%m-%d}"
            drift = judge_window(profile, to_window(rows, comparison.roles), comparison.spec)
            moments.append(Moment(label, rows.height, _strongest(_results(drift), comparison.spec)))
    return Timeline(_UNITS[unit], clock, tuple(sorted(moments, key=lambda moment: moment.label)))


def over_days(documents: Sequence[Mapping[str, Any]], spec: DriftSpec, *latest: Moment) -> Timeline:
    """The days of a model, from its drift documents (`monitoring.windows`), oldest first, and the latest after them."""
    moments = (*(_of_document(document, spec) for document in documents), *latest)
    return Timeline("day", _PREFERRED, moments[-DAYS_SHOWN:])


def today(label: str, drift: WindowDrift, spec: DriftSpec) -> Moment:
    """The day that is being judged, whose document is still to be written."""
    return Moment(label, drift.rows, _strongest(_results(drift), spec), drift.verdict)


def _results(drift: WindowDrift) -> list[tuple[str, str, str, float | None]]:
    return [
        (group.name, r.column, r.statistic_name, r.effect) for group in drift.groups.values() for r in group.results
    ]


def _of_document(document: Mapping[str, Any], spec: DriftSpec) -> Moment:
    results = [
        (name, result["column"], result["statistic_name"], result["effect"])
        for name, group in document["groups"].items()
        for result in group["results"]
    ]
    return Moment(document["day"], document["rows"], _strongest(results, spec), Verdict(document["verdict"]))


def _strongest(results: Sequence[tuple[str, str, str, float | None]], spec: DriftSpec) -> dict[str, float]:
    """The largest strength of each column, of results as (group, column, statistic, effect)."""
    found: dict[str, float] = {}
    for group, column, statistic, effect in results:
        ratio = strength(statistic, effect, spec)
        if ratio is not None and group != SCHEMA:
            name = shown_name(group, column)
            found[name] = max(found.get(name, 0.0), ratio)
    return found
