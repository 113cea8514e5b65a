"""The drift report: what moved, how far, and what it looks like now, for a comparison or for a model's day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mlops_assets.drift.profile import ReferenceProfile, Window
from mlops_assets.drift.window import WindowDrift, effect_floor
from mlops_assets.report import plots
from mlops_assets.report.comparison import Comparison
from mlops_assets.report.heat import Heat, strength_rows
from mlops_assets.report.page import Fact, render
from mlops_assets.report.roles import Role
from mlops_assets.report.shapes import Histogram
from mlops_assets.report.stories import Story, tell
from mlops_assets.report.timeline import Timeline, over_days, over_rows, today
from mlops_assets.report.words import count, number, percent
from mlops_assets.settings import ModelHome
from mlops_assets.spec import DriftSpec
from mlops_assets.storage import write_atomic
from mlops_assets.verdict import Verdict

_REACH = 5.0  # multiples of the limit that the ranking shows; what lies beyond fills its line
_HEAT_ROWS = 25
_TOLD = 3  # columns that the head names
_LOUD = {
    Verdict.ERROR: "Could not be compared",
    Verdict.FAIL: "What drifted",
    Verdict.INSUFFICIENT_DATA: "Too little data",
}


@dataclass(frozen=True)
class Subject:
    """What was compared with what, as the page's head names it."""

    title: str
    eyebrow: str
    before: str
    now: str
    facts: tuple[Fact, ...]
    not_compared: tuple[Role, ...] = ()


@dataclass(frozen=True)
class DriftPage:
    """All that the page shows."""

    title: str
    eyebrow: str
    headline: str
    lead: str
    verdict: Verdict
    before: str
    now: str
    facts: tuple[Fact, ...]
    stories: tuple[Story, ...]
    over_time: Heat | None
    missing: Markup | None
    not_compared: tuple[Role, ...]
    alpha: float

    @property
    def reach(self) -> float:
        """The end of the ranking's scale, in limits."""
        strongest = max((story.strength or 0.0 for story in self.stories), default=0.0)
        return min(max(strongest, 1.25), _REACH)

    @property
    def loud(self) -> list[tuple[str, list[Story]]]:
        """Stories that are not quiet, under their titles."""
        groups = [(title, [s for s in self.stories if s.verdict is verdict]) for verdict, title in _LOUD.items()]
        return [(title, stories) for title, stories in groups if stories]

    @property
    def moved(self) -> list[Story]:
        """Stories for the ranking; none where not one column could be judged."""
        return list(self.stories) if any(story.strength is not None for story in self.stories) else []

    @property
    def quiet(self) -> list[Story]:
        """Stories that passed."""
        return [story for story in self.stories if story.verdict is Verdict.PASS]


def comparison_page(comparison: Comparison) -> str:
    """The report of two tables, as HTML."""
    before, now = comparison.reference, comparison.current
    subject = Subject(
        title=f"Drift: {now.name} against {before.name}",
        eyebrow=f"Drift report · {now.name} against {before.name}",
        before=before.name,
        now=now.name,
        facts=(
            Fact("Reference", before.name, count(before.frame.height, "row")),
            Fact("Current", now.name, count(now.frame.height, "row")),
        ),
        not_compared=comparison.not_compared,
    )
    stories = tell(comparison.profile, comparison.window, comparison.drift, comparison.spec)
    return _page(subject, stories, comparison.drift, comparison.spec, over_rows(comparison))


def write_day_page(
    home: ModelHome,
    day: date | datetime,
    profile: ReferenceProfile,
    window: Window,
    drift: WindowDrift,
    spec: DriftSpec,
    documents: Sequence[Mapping[str, Any]],
) -> Path:
    """Write the drift report of one of a model's days under its home, with those of `documents` that lie before it.

    Repeated with the same input it writes the same bytes.
    """
    name, model = f"{day:%Y-%m-%d}", home.root.name
    subject = Subject(
        title=f"{model}: drift on {name}",
        eyebrow=f"Drift report · {model} · {day:%A, %d %B %Y}",
        before="reference",
        now=name,
        facts=(
            Fact("Reference", _origin(profile), count(profile.rows, "held-out row")),
            Fact("Current", f"{name} (UTC)", count(window.rows, "prediction")),
        ),
    )
    timeline = over_days([d for d in documents if d["day"] < name], spec, today(name, drift, spec))
    html = _page(subject, tell(profile, window, drift, spec), drift, spec, timeline)
    return write_atomic(day_page(home, name), html.encode())


def day_page(home: ModelHome, day: str) -> Path:
    """Where the drift report of a day (an ISO date) lies."""
    return home.reports / "drift" / f"{day}.html"


def headline(stories: Sequence[Story]) -> str:
    """The verdict in words.

    >>> headline(())
    'Nothing was compared'
    """
    by = {verdict: [story for story in stories if story.verdict is verdict] for verdict in Verdict}
    broken, drifted, thin = by[Verdict.ERROR], by[Verdict.FAIL], by[Verdict.INSUFFICIENT_DATA]
    of_all = count(len(stories), "column")
    if not stories:
        return "Nothing was compared"
    found = f"{len(drifted)} of {of_all} drifted, {drifted[0].column} most" if drifted else ""
    if broken:
        also = f"; {found}" if found else ""
        return f"Could not say: {count(len(broken), 'column')} could not be compared{also}"
    if found:
        return found
    if thin:
        return f"Could not say: too little data in {len(thin)} of {of_all}"
    return f"No drift in {of_all}"


def lead(stories: Sequence[Story], drift: WindowDrift, spec: DriftSpec) -> str:
    """What the verdict means and what it rests on, in a few sentences."""
    concerned = [story for story in stories if story.verdict is drift.verdict][:_TOLD]
    names = ", ".join(story.column for story in concerned)
    told = ", ".join(f"{s.column} ({s.change})" if s.change else s.column for s in concerned)
    opening = {
        Verdict.PASS: "No column differs by more than chance explains and its limit allows.",
        Verdict.FAIL: f"Most of all: {told}.",
        Verdict.INSUFFICIENT_DATA: f"First of all {names}: {concerned[0].change if concerned else 'no rows'}.",
        Verdict.ERROR: f"Mend this first: {told}.",
    }[drift.verdict]
    return f"{opening} If nothing had changed, at most {percent(spec.alpha)} of such comparisons would say drift."


def _outcome(stories: Sequence[Story], drift: WindowDrift, spec: DriftSpec) -> tuple[Fact, ...]:
    drifted = sum(story.verdict is Verdict.FAIL for story in stories)
    results = sum(len(story.results) for story in stories)
    return (
        Fact(
            "Drifted",
            f"{drifted} of {count(len(stories), 'column')}",
            f"{count(results, 'statistic')}, corrected together",
        ),
        Fact("Error rate", percent(spec.alpha), f"at most 1 false alarm in {drift.expected_run:,.0f} comparisons"),
    )


def _origin(profile: ReferenceProfile) -> str:
    digest = profile.about.get("snapshot_digest", "")
    return f"snapshot {digest[:12]}" if digest else "of the model in production"


def _heat(timeline: Timeline | None, stories: Sequence[Story]) -> Heat | None:
    if timeline is None or sum(bool(moment.strengths) for moment in timeline.moments) < 2:
        return None
    ranked = sorted((s for s in stories if s.strength is not None), key=lambda story: -(story.strength or 0.0))
    hidden = f" The {_HEAT_ROWS} that moved most are shown." if len(ranked) > _HEAT_ROWS else ""
    note = f"The strength of each column's change, {timeline.unit} by {timeline.unit} of {timeline.clock}.{hidden}"
    rows = strength_rows(timeline, [story.column for story in ranked[:_HEAT_ROWS]])
    return Heat(note, tuple(moment.label for moment in timeline.moments), rows)


def _missing(stories: Sequence[Story]) -> Markup | None:
    rows = [(story.column, *story.missing) for story in stories if story.missing]
    rows.sort(key=lambda row: -abs(row[2] - row[1]))
    return plots.dumbbells(rows, "share of missing values, reference and current") if rows else None


def _page(
    subject: Subject, stories: tuple[Story, ...], drift: WindowDrift, spec: DriftSpec, timeline: Timeline | None
) -> str:
    page = DriftPage(
        title=subject.title,
        eyebrow=subject.eyebrow,
        headline=headline(stories),
        lead=lead(stories, drift, spec),
        verdict=drift.verdict,
        before=subject.before,
        now=subject.now,
        facts=(*subject.facts, *_outcome(stories, drift, spec)),
        stories=stories,
        over_time=_heat(timeline, stories),
        missing=_missing(stories),
        not_compared=subject.not_compared,
        alpha=spec.alpha,
    )
    filters = {
        "shape": lambda story: _shape(story, f"{story.column}: {subject.before} and {subject.now}"),
        "spark": lambda story: _spark(story, timeline),
        "limit": lambda statistic: number(effect_floor(statistic, spec)),
    }
    return render("drift.html", page, filters)


def _shape(story: Story, title: str) -> Markup:
    if story.shape is None:
        return Markup("")
    return (
        plots.distribution(story.shape, title) if isinstance(story.shape, Histogram) else plots.mix(story.shape, title)
    )


def _spark(story: Story, timeline: Timeline | None) -> Markup:
    moments = timeline.moments if timeline else ()
    values = [moment.strengths.get(story.column) for moment in moments]
    if len([value for value in values if value is not None]) < 2:
        return Markup("")
    return plots.sparkline(values, [moment.label for moment in moments], f"{story.column}: strength over time")
