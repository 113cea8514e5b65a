"""Reads what is on record of a model: its home, and its versions in the registry.

It reads and judges nothing. What an earlier form of the code wrote is passed over, and said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from pydantic import TypeAdapter, ValidationError

from mlops_assets.data.ingest import known_rows, read_days
from mlops_assets.monitoring.predictions import read_feedback, read_requests
from mlops_assets.monitoring.retrain_policy import LedgerEntry, Signals
from mlops_assets.monitoring.windows import read_windows
from mlops_assets.release.evidence import inputs_from
from mlops_assets.release.state import RolloutState
from mlops_assets.replay.history import Decided, Found, Gated, History, Look, Released
from mlops_assets.replay.rollouts import time_scale
from mlops_assets.resources.registry import SINCE_TAG, Registry, Version
from mlops_assets.settings import ModelHome, Settings
from mlops_assets.spec import GateSpec, ModelSpec
from mlops_assets.storage import read_json
from mlops_assets.verdict import Verdict

_TIME = pl.Datetime("us", "UTC")
_ANSWER: dict[str, Any] = {
    "message_id": pl.String,
    "customer_id": pl.String,
    "version": pl.Int64,
    "predicted": pl.String,
    "label": pl.String,
    "event_timestamp": _TIME,
    "label_timestamp": _TIME,
}
_LABEL = ("event_timestamp", "label_timestamp")
_SIGNALS, _LEDGER = TypeAdapter(Signals), TypeAdapter(tuple[LedgerEntry, ...])

Read = TypeVar("Read")


def read_history(settings: Settings, own: ModelSpec) -> History:
    """Everything on record of a model.

    Raises:
        RegistryUnavailable: the registry cannot be reached.
        EvidenceCorrupt: evidence of a version was changed.
        ValueError: a file is broken.
    """
    from mlops_assets.serving.endpoint import EXCHANGE_SECONDS

    home, unread = settings.model_home(own.name), Counter[str]()
    reads = partial(_read_each, unread=unread)
    looks = reads(_looks, read_windows(home.windows, "monitors"), what="days of monitors")
    versions = _versions(Registry(settings), own.name, reads)
    return History(
        own=own,
        drift={_day(document): document for document in read_windows(home.windows, "drift")},
        quality={_day(document): document for document in read_windows(home.windows, "quality")},
        answers=_answers(home),
        labels=_labels(home),
        requests=read_requests(home.predictions).rows,
        feedback=read_feedback(home.feedback).rows,
        looks=tuple(sorted((look for day in looks for look in day), key=lambda look: look.wall)),
        decisions=tuple(
            sorted(
                reads(_decided, _documents(home.evidence / "retrain"), what="decisions on retraining"),
                key=lambda decided: decided.wall,
            )
        ),
        gates=tuple(
            sorted(
                reads(partial(_gated, home), _documents(home.evidence / "gate"), what="gate decisions"),
                key=lambda gated: gated.wall,
            )
        ),
        versions=tuple(versions),
        exchange_seconds=EXCHANGE_SECONDS,
        time_scale=_time_scale(own, versions, settings),
        unread=tuple(f"{number} {what}" for what, number in unread.items()),
    )


def _read_each(read: Callable[[Any], Read], documents: Any, *, what: str, unread: Counter[str]) -> list[Read]:
    """Read documents; those of an earlier form are counted."""
    found = []
    for document in documents:
        try:
            found.append(read(document))
        except KeyError as error:
            unread[f"{what}: written in an earlier form, without {error.args[0]!r}"] += 1
        except ValidationError as error:
            unread[f"{what}: written in another form than this code reads ({error.title})"] += 1
    return found


def _documents(folder: Path) -> Iterator[dict[str, Any]]:
    yield from (read_json(path) for path in sorted(folder.glob("*.json")))


def _day(document: dict[str, Any]) -> date:
    return date.fromisoformat(document["day"])


def _looks(document: dict[str, Any]) -> list[Look]:
    return [
        Look(
            at=datetime.fromisoformat(look["at"]),
            wall=datetime.fromisoformat(look["decided"]),
            found={
                check: Found(Verdict(said["verdict"]), said["score"], said["pages"])
                for check, said in look["found"].items()
            },
        )
        for look in document["looks"]
    ]


def _decided(document: dict[str, Any]) -> Decided:
    return Decided(
        id=document["id"],
        at=datetime.fromisoformat(document["at"]),
        wall=datetime.fromisoformat(document["decided"]),
        action=document["action"],
        cause=document["cause"],
        key=document["key"],
        reason=document["reason"],
        labels=document["labels"],
        signals=_SIGNALS.validate_python(document["signals"]),
        ledger=_LEDGER.validate_python(document["ledger"]),
    )


def _gated(home: ModelHome, document: dict[str, Any]) -> Gated:
    digest, decision = document["artefact_digest"], document["decision"]
    at, wall = datetime.fromisoformat(document["at"]), datetime.fromisoformat(document["decided"])
    rows = pl.read_parquet(home.evidence / "gate" / f"{digest}.rows.parquet")
    return Gated(
        digest=digest,
        at=at,
        wall=wall,
        retrain=document["retrain"],
        spec=GateSpec.model_validate(document["spec"]["gate"]),
        inputs=inputs_from(document["inputs"], rows),
        verdict=Verdict(decision["verdict"]),
        released=decision["released"],
        summary=decision["summary"],
    )


def _versions(registry: Registry, model: str, reads: Callable[..., list[Released]]) -> list[Released]:
    versions = sorted(registry.versions(model), key=lambda version: version.version)
    return reads(partial(_released, registry, model), versions, what="versions")


def _released(registry: Registry, model: str, version: Version) -> Released:
    evidence = registry.evidence(model, version.version).get("rollout", {})
    return Released(
        version=version.version,
        digest=version.artefact_digest,
        retrain=version.tags.get("decision", ""),
        trained_until=version.trained_until,
        registered=version.created_at,
        production_since=version.production_since if SINCE_TAG in version.tags else None,
        rollout=_rollout(evidence),
    )


def _rollout(evidence: dict[str, Any]) -> RolloutState | None:
    """The rollout's state; None for a first version, which had none."""
    return RolloutState.from_dict(evidence["rollout"]) if "rollout" in evidence else None


def _time_scale(own: ModelSpec, versions: list[Released], settings: Settings) -> float:
    """As the rollouts on record ran, where they ran the model's own policy; else as the settings say."""
    ran = (released.rollout.policy for released in versions if released.rollout is not None)
    scales = (time_scale(own.canary, policy) for policy in ran)
    return next((scale for scale in scales if scale is not None), settings.canary_time_scale)


def _answers(home: ModelHome) -> pl.DataFrame:
    rows = read_days(home.labelled)
    if rows is None:
        return pl.DataFrame(schema=_ANSWER)
    return rows.select(pl.col(name).cast(kind) for name, kind in _ANSWER.items())


def _labels(home: ModelHome) -> pl.DataFrame:
    known = [rows.filter(pl.col("label").is_not_null()).select(pl.col(_LABEL).cast(_TIME)) for rows in known_rows(home)]
    return pl.concat(known) if known else pl.DataFrame(schema=dict.fromkeys(_LABEL, _TIME))
