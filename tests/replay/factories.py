"""A small history, made by the rules that make one: drift documents from the engine, decisions from the policy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from mlops_assets.drift.profile import Window, build_profile
from mlops_assets.drift.window import judge_window
from mlops_assets.monitoring.retrain_policy import LedgerEntry, Outcome, Signals, WindowVerdict, decide
from mlops_assets.replay.history import Decided, History, Released
from mlops_assets.spec import CanarySpec, ModelSpec, RetrainSpec
from mlops_assets.storage import to_json
from mlops_assets.verdict import Verdict

FIRST = date(2026, 3, 1)
OWN = ModelSpec(
    name="m",
    retrain=RetrainSpec(min_new_labels=200, cooldown_days=2),
    canary=CanarySpec(weights=(0.2,), minutes=20, max_minutes=50),
)
LABELS_A_DAY = 100
_PROFILE = build_profile(Window(features={"spend": np.random.default_rng(0).normal(size=500)}))
_SCHEMA = {
    "message_id": pl.String,
    "customer_id": pl.String,
    "version": pl.Int64,
    "predicted": pl.String,
    "label": pl.String,
    "event_timestamp": pl.Datetime("us", "UTC"),
    "label_timestamp": pl.Datetime("us", "UTC"),
}
_REQUESTS = {"repeat": pl.Boolean, "overridden": pl.Boolean, "status": pl.String, "latency_ms": pl.Float64}
_REQUESTS |= {"event_timestamp": pl.Datetime("us", "UTC")}


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def midnight(after: date) -> datetime:
    """When a day is judged: once it is over."""
    return datetime(after.year, after.month, after.day, tzinfo=UTC) + timedelta(days=1)


def drift_document(on: date, shift: float, version: int) -> dict[str, Any]:
    """A day's drift document; `shift` of the one feature, in standard deviations."""
    window = Window(features={"spend": np.random.default_rng(on.toordinal()).normal(shift, 1, size=LABELS_A_DAY)})
    drift = judge_window(_PROFILE, window, OWN.drift)
    groups = {name: {"verdict": g.verdict, "alpha": g.alpha, "results": g.results} for name, g in drift.groups.items()}
    about = {"day": on, "verdict": drift.verdict, "rows": drift.rows, "summary": drift.summary(), "groups": groups}
    document: dict[str, Any] = json.loads(to_json({**about, "reference_version": version}))
    return document


def released(version: int, retrain: str, since: date | None) -> Released:
    """A version without a canary of its own."""
    at = None if since is None else midnight(since)
    return Released(
        version, f"digest{version}", retrain, midnight(FIRST) - timedelta(days=30), midnight(FIRST), at, None
    )


def history(shifts: Sequence[float], retrained: int | None = None) -> History:
    """Days with these shifts under version 1, judged and decided on each midnight.

    The loop's own policy decides. From the day `retrained` on, version 2, made by the first retrain, is in production.
    """
    versions = [1 if retrained is None or n < retrained else 2 for n in range(len(shifts))]
    drift = {day(n): drift_document(day(n), shift, versions[n]) for n, shift in enumerate(shifts)}
    decisions: list[Decided] = []
    for n in range(len(shifts)):
        decisions.append(_decide(list(drift.values())[: n + 1], versions, n, decisions))
    first = next((one.id for one in decisions if one.action == "retrain"), "")
    made = [released(1, "", FIRST - timedelta(days=9))]
    if retrained is not None:
        made.append(released(2, first, day(retrained - 1)))
    events = [midnight(day(n)) - timedelta(minutes=5 * k + 5) for n in range(len(shifts)) for k in range(LABELS_A_DAY)]
    quality = {"reference_version": 1, "promised_f1": 0.9, "promised_accuracy": 0.9, "estimate": None}
    empty = {"predictions": 0, "labels": 0, "accuracy": None, "f1_weighted": None, "f1_low": None, "f1_high": None}
    return History(
        own=OWN,
        drift=drift,
        quality={on: {"day": f"{on}", **quality, **empty} for on in drift},
        answers=pl.DataFrame(schema=_SCHEMA),
        labels=pl.DataFrame(
            {"event_timestamp": events, "label_timestamp": events},
            schema_overrides={name: pl.Datetime("us", "UTC") for name in ("event_timestamp", "label_timestamp")},
        ),
        requests=pl.DataFrame(schema=_REQUESTS),
        feedback=pl.DataFrame(),
        looks=(),
        decisions=tuple(decisions),
        gates=(),
        versions=tuple(made),
        exchange_seconds=0.5,
    )


def _decide(documents: list[dict[str, Any]], versions: list[int], n: int, before: list[Decided]) -> Decided:
    """What the loop decided at the end of day `n`, and with which ledger."""
    at, production = midnight(day(n)), versions[min(n + 1, len(versions) - 1)]
    windows = tuple(
        WindowVerdict(date.fromisoformat(d["day"]), "drift", Verdict(d["verdict"]), d["reference_version"])
        for d in documents
        if d["reference_version"] == production
    )
    drifted = sum(window.verdict is Verdict.FAIL for window in windows)
    ended = Outcome.RELEASED if production == 2 else Outcome.PENDING
    ledger = tuple(LedgerEntry(one.at, one.key or "", one.labels, ended) for one in before if one.action == "retrain")
    signals = Signals(
        "m",
        production_version=production,
        production_since=midnight(FIRST) - timedelta(days=10),
        windows=windows,
        new_labels=LABELS_A_DAY * (n + 1),
        drifted_labels=LABELS_A_DAY * drifted,
    )
    said = decide(signals, ledger, OWN.retrain, at)
    cause = said.cause.value if said.cause else None
    return Decided(f"r{n}", at, at, said.action.value, cause, said.key, said.reason, said.labels, signals, ledger)


def policy(**sections: dict[str, Any]) -> ModelSpec:
    """The model's own spec with some fields of its sections changed."""
    changes = {name: getattr(OWN, name).model_copy(update=fields) for name, fields in sections.items()}
    return OWN.model_copy(update=changes)


def at_work(recorded: History, text: str, from_day: int) -> History:
    """The same, with something under way from a day on."""
    early, late = recorded.decisions[:from_day], recorded.decisions[from_day:]
    busy = tuple(replace(one, signals=replace(one.signals, in_flight=text)) for one in late)
    return replace(recorded, decisions=(*early, *busy))
