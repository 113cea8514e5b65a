"""The data-quality report of a model: its validated days, what was set aside, labels, drift and quality windows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mlops_assets.report import plots
from mlops_assets.report.drift_page import day_page
from mlops_assets.report.heat import Cell, Heat, Row, strength_rows
from mlops_assets.report.page import Fact, render
from mlops_assets.report.shapes import Band, Histogram
from mlops_assets.report.stored_data import NOT_KNOWN, RECENT_DAYS, Days, Fault, Quarantine, StoredData, read_stored
from mlops_assets.report.timeline import over_days
from mlops_assets.report.words import VERDICTS, count, days_long, percent
from mlops_assets.settings import ModelHome
from mlops_assets.spec import ModelSpec
from mlops_assets.storage import write_atomic
from mlops_assets.verdict import Verdict

_SIGNS = {Verdict.FAIL: "!", Verdict.INSUFFICIENT_DATA: "?", Verdict.ERROR: "×", Verdict.PASS: ""}
_QUALITY = {**VERDICTS, Verdict.PASS: "as promised", Verdict.FAIL: "below what the gate promised"}
_DELAY_NOTE = (
    "Days until a label became known, of the labels known so far: the median and the middle 80 %. "
    "The newest days look fast, as their slow labels are still to come."
)
_COLOURED = plots.PALETTE - 1  # the last colour is for what is not known yet


@dataclass(frozen=True)
class Figure:
    """One plot under a title; `keys` name its colours."""

    title: str
    note: str
    drawn: Markup
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class QualityPage:
    """All that the page shows."""

    title: str
    eyebrow: str
    headline: str
    lead: str
    verdict: Verdict
    facts: tuple[Fact, ...]
    days: tuple[Figure, ...]
    missing: Heat | None
    windows: Heat | None
    windows_f1: Markup | None
    day_reports: tuple[tuple[str, str], ...]
    quarantine: tuple[Figure, ...]
    examples: tuple[Fault, ...]
    files: tuple[tuple[str, str], ...]


def write_quality_page(home: ModelHome, spec: ModelSpec) -> Path:
    """Write the data-quality report of a model under its home; same data, same bytes."""
    page = quality_page(home, spec, read_stored(home), home.reports)
    return write_atomic(home.reports / "data_quality.html", page.encode())


def quality_page(home: ModelHome, spec: ModelSpec, stored: StoredData, folder: Path) -> str:
    """The report as HTML; `folder` is where it will lie, for its links to the days' drift reports."""
    verdict = judge_share(stored, spec)
    page = QualityPage(
        title=f"{spec.name}: data quality",
        eyebrow=f"Data quality · {spec.name}",
        headline=headline(stored, spec),
        lead=_lead(stored),
        verdict=verdict,
        facts=_facts(stored, spec),
        days=_day_figures(stored.days) if stored.days else (),
        missing=_missing(stored.days) if stored.days else None,
        windows=_windows(stored, spec),
        windows_f1=_f1(stored.quality),
        day_reports=_day_reports(home, stored.drift, folder),
        quarantine=_quarantine_figures(stored.quarantine),
        examples=stored.quarantine.examples,
        files=stored.quarantine.files,
    )
    return render("quality.html", page, {})


def judge_share(stored: StoredData, spec: ModelSpec) -> Verdict:
    """Whether at most `data.max_quarantined_share` of all rows were set aside: a plain rule, over all of them."""
    if not stored.rows and not stored.quarantine.rows:
        return Verdict.INSUFFICIENT_DATA
    return Verdict.PASS if _bad_share(stored) <= spec.data.max_quarantined_share else Verdict.FAIL


def headline(stored: StoredData, spec: ModelSpec) -> str:
    """The state of the data in words."""
    verdict, bad = judge_share(stored, spec), stored.quarantine.rows
    if verdict is Verdict.INSUFFICIENT_DATA:
        return "No data has come in yet"
    if verdict is Verdict.FAIL:
        allowed = percent(spec.data.max_quarantined_share)
        return f"{percent(_bad_share(stored))} of the rows break the contract, more than the {allowed} allowed"
    aside = f"; {bad:,} {'was' if bad == 1 else 'were'} set aside" if bad else ""
    return f"{count(stored.rows, 'message')} keep the contract{aside}"


def _bad_share(stored: StoredData) -> float:
    bad = stored.quarantine.rows
    return bad / ((stored.rows + bad) or 1)


def _lead(stored: StoredData) -> str:
    said = []
    if stored.quarantine.by_check:
        check, n = stored.quarantine.by_check[0]
        said.append(f"The most frequent fault is {check} ({n:,}).")
    if stored.quarantine.files:
        said.append(f"{count(len(stored.quarantine.files), 'file')} could not be read as a table.")
    if stored.drift:
        said.append(f"Drift on {stored.drift[-1]['day']}: {stored.drift[-1]['summary']}.")
    if stored.quality:
        said.append(f"Quality on {stored.quality[-1]['day']}: {stored.quality[-1]['message']}.")
    return " ".join(said) or "Put messages into the inbox: mlops ingest --messages FILE."


def _facts(stored: StoredData, spec: ModelSpec) -> tuple[Fact, ...]:
    quarantine = stored.quarantine
    known = percent(stored.labelled / stored.rows) if stored.rows else "–"
    delays = [band.middle for band in stored.days.delays if band] if stored.days else []
    typical = sorted(delays)[len(delays) // 2] if delays else None
    days = f"{stored.first} to {stored.last}" if stored.rows else "none yet"
    return (
        Fact("Messages", f"{stored.rows:,}", days),
        Fact(
            "Set aside",
            count(quarantine.rows, "row"),
            f"{percent(_bad_share(stored))}; at most {percent(spec.data.max_quarantined_share)} may be",
        ),
        Fact("Unreadable files", f"{len(quarantine.files):,}"),
        Fact("Labels known", known, f"typically after {days_long(typical)}" if typical is not None else ""),
        Fact(
            "Judged days",
            f"{len(stored.drift):,} for drift",
            f"{sum(d['verdict'] == 'fail' for d in stored.drift)} drifted",
        ),
    )


def _day_figures(days: Days) -> tuple[Figure, ...]:
    labels = _coloured(days.labels)
    names, keys = days.names, tuple(labels)
    volume = plots.stacked(names, labels, "messages per day by label", "message")
    mix = plots.shares(names, labels, "label mix per day")
    lengths = plots.band(names, days.lengths, "text length per day", " characters")
    figures = [
        Figure("Messages per day", "Validated messages by label, in event time (UTC).", volume, keys),
        Figure("Label mix", "The same as shares: a shift of the mix shows whatever the volume does.", mix, keys),
        Figure("Text length", "Characters per text: the median of each day and the middle 80 % around it.", lengths),
    ]
    if isinstance(days.recent_lengths, Histogram):
        note = f"Characters per text on the last {RECENT_DAYS} days (line) beside the days before (area)."
        drawn = plots.distribution(days.recent_lengths, "text length, last week beside the days before")
        figures.append(Figure("Text length, last week", note, _narrow(drawn)))
    if any(days.delays):
        drawn = plots.band(names, days.delays, "label delay per day", " days")
        figures.append(Figure("Label delay", _DELAY_NOTE, drawn))
    return tuple(figures)


def _narrow(drawn: Markup) -> Markup:
    return Markup('<div class="narrow">{}</div>').format(drawn)


def _coloured(labels: Mapping[str, Sequence[int]]) -> dict[str, Sequence[float]]:
    """At most as many parts as there are colours: the largest labels, all others as one, the unknown in grey."""
    known = sorted((name for name in labels if name != NOT_KNOWN), key=lambda name: -sum(labels[name]))
    shown, others = (known, []) if len(known) <= _COLOURED else (known[: _COLOURED - 1], known[_COLOURED - 1 :])
    parts: dict[str, Sequence[float]] = {name: labels[name] for name in sorted(shown)}
    if others:
        parts[f"{len(others)} others"] = [sum(day) for day in zip(*(labels[name] for name in others), strict=True)]
    if NOT_KNOWN in labels:
        parts[NOT_KNOWN] = labels[NOT_KNOWN]
    return parts


def _missing(days: Days) -> Heat | None:
    rows = [
        Row(name, tuple(_share_cell(day, share) for day, share in zip(days.names, shares, strict=True)))
        for name, shares in days.missing.items()
    ]
    return Heat("Share of values that are not there, by column and day.", days.names, tuple(rows)) if rows else None


def _share_cell(day: str, share: float | None) -> Cell:
    if share is None:
        return Cell("h0", f"{day}: no messages")
    level = sum(share > step for step in (0, 0.05, 0.2, 0.5, 0.8))
    return Cell(f"h{level or 1}" if share else "none", f"{day}: {percent(share)} missing")


def _windows(stored: StoredData, spec: ModelSpec) -> Heat | None:
    """Verdicts of each day on top, strengths of each column below."""
    timeline = over_days(stored.drift, spec.drift)
    if not timeline.moments:
        return None
    labels = tuple(moment.label for moment in timeline.moments)
    quality = {document["day"]: Verdict(document["verdict"]) for document in stored.quality}
    verdicts = (
        Row("drift", tuple(_verdict_cell(m.label, m.verdict, VERDICTS) for m in timeline.moments)),
        Row("quality", tuple(_verdict_cell(day, quality.get(day), _QUALITY) for day in labels)),
    )
    return Heat("", labels, (*verdicts, *strength_rows(timeline)))


def _verdict_cell(day: str, verdict: Verdict | None, words: Mapping[Verdict, str]) -> Cell:
    if verdict is None:
        return Cell("h0", f"{day}: not judged")
    return Cell(f"verdict {verdict.value}", f"{day}: {words[verdict]}", _SIGNS[verdict])


def _f1(documents: Sequence[Mapping[str, Any]]) -> Markup | None:
    if not any(document["f1_weighted"] is not None for document in documents):
        return None
    bands = [None if d["f1_weighted"] is None else Band(d["f1_low"], d["f1_weighted"], d["f1_high"]) for d in documents]
    return plots.band([d["day"] for d in documents], bands, "realised weighted F1 per day", top=1.0)


def _day_reports(home: ModelHome, documents: Sequence[Mapping[str, Any]], folder: Path) -> tuple[tuple[str, str], ...]:
    """(day, link) of each day that has a drift report, newest first."""
    days = [document["day"] for document in reversed(documents)]
    pages = {day: day_page(home, day) for day in days}
    return tuple((day, Path(os.path.relpath(page, folder)).as_posix()) for day, page in pages.items() if page.exists())


def _quarantine_figures(quarantine: Quarantine) -> tuple[Figure, ...]:
    if not quarantine.by_check:
        return ()
    days, parts = quarantine.by_day
    by_check = _narrow(plots.bars(quarantine.by_check[:12], "faults by check"))
    return (
        Figure("By check", "Faults; a row may have several.", by_check),
        Figure(
            "By day",
            "Faults by the day on which their row happened.",
            plots.stacked(days, parts, "faults per day by check", "fault"),
            tuple(parts),
        ),
    )
