"""`mlops forget`: removes a customer's rows from every store under the home, and says what went from where.

It knows which stores there are and their order: what is found by way of other rows goes before these, so that the
same call again finishes what a crash cut short. How rows leave a file is `erasure`'s. Not touched is what names
nobody: registered models, counts, and the evidence of decisions, whose rows carry a message's id and figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlops_assets.data.ingest import inbox_files
from mlops_assets.declarations import find_specs
from mlops_assets.ops.erasure import (
    COLUMNS,
    Found,
    Removed,
    erase_drafts,
    erase_from_log,
    erase_from_snapshots,
    erase_from_tables,
    found_in_logs,
    found_in_tables,
)
from mlops_assets.ops.setup import dagster_instance, is_home
from mlops_assets.settings import ModelHome, Settings
from mlops_assets.spec import Columns


class ForgetRefused(RuntimeError):
    """There is no home to search, or a run that is in flight may write back what it has read; nothing was removed."""


@dataclass(frozen=True)
class Forgotten:
    """What was removed, store by store; `meanwhile`: runs that began before it was over and may have read the old."""

    removed: tuple[Removed, ...]
    meanwhile: tuple[str, ...]

    @property
    def rows(self) -> int:
        return sum(store.rows for store in self.removed)


def forget_customer(settings: Settings, customer_id: str) -> Forgotten:
    """Remove every row of a customer, of all models; may be repeated, and the endpoint may serve meanwhile.

    Raises:
        ForgetRefused: a Dagster run is in flight, or the home is none.
        FeatureStoreDown: the online store cannot be cleaned; what comes before it is done.
        SpecError: a model's YAML is broken.
    """
    begun = datetime.now(UTC)
    _require_home(settings)
    if runs := _in_flight(settings):
        raise ForgetRefused(f"run {', '.join(runs)} is in flight and may write back what it has read; ask again later")
    models = list(_models(settings))
    found = Found(customer_id)
    for home, columns in models:
        found = _found(home, columns, found)
    removed = [store for home, _ in models for store in _erase_derived(home, found)]
    removed += _erase_features(settings, found)
    removed += _erase_events(settings, found)
    removed += [store for home, columns in models for store in _erase_sources(home, columns, found, begun)]
    removed.append(erase_from_tables("demo/world", (settings.home / "demo" / "world").glob("*.parquet"), found))
    stores = [settings.home / name for name in ("models", "feast", "incoming", "quarantine", "demo")]
    removed.append(erase_drafts("unfinished", stores, begun))
    _write_pages_again(settings)
    return Forgotten(tuple(removed), _in_flight(settings, since=begun))


def _require_home(settings: Settings) -> None:
    """Rows may have come in before the platform was first up; where there is nothing at all, nothing is forgotten."""
    inboxes = (settings.model_home("_").root.parent, settings.customer_events)
    if not is_home(settings) and not any(folder.is_dir() for folder in inboxes):
        home = settings.home.resolve()
        raise ForgetRefused(f"{home} is no home of this platform, so nothing was searched: is MLOPS_HOME right?")


def _models(settings: Settings) -> Iterator[tuple[ModelHome, Columns]]:
    """Every model that has a home, also one that is no longer declared, and what its files call their columns."""
    declared = {spec.name: spec.data.columns for spec in find_specs(settings.models_dir)}
    for folder in sorted(settings.model_home("_").root.parent.glob("*")):
        yield settings.model_home(folder.name), declared.get(folder.name, COLUMNS)


def _found(home: ModelHome, columns: Columns, found: Found) -> Found:
    found = found_in_tables(inbox_files(home.incoming / "messages"), columns, found)
    found = found_in_tables((home.quarantine / "files").glob("*"), columns, found)
    stores = (home.validated, home.labelled, home.quarantine, home.snapshots)
    found = found_in_tables((path for store in stores for path in store.glob("*.parquet")), COLUMNS, found)
    return found_in_logs(home.predictions.glob("*.ndjson"), found)


def _erase_derived(home: ModelHome, found: Found) -> Iterator[Removed]:
    """What is the customer's by a message's id or text alone."""
    from mlops_assets.training.embedding_cache import drop

    for folder in (home.feedback, home.shadow):
        segments = sorted(folder.glob("*.ndjson"))
        yield erase_from_log(_name(folder), segments, "prediction_id", found.messages, found)
    features = home.snapshots / "features"
    yield erase_from_tables(_name(features), sorted(features.glob("*.parquet")), found)
    yield Removed(_name(home.embeddings), drop(found.texts, home.embeddings))


def _erase_features(settings: Settings, found: Found) -> Iterator[Removed]:
    from mlops_assets.resources.feast import FeatureStoreDoor

    if not (settings.home / "feast").exists():
        return
    removed = FeatureStoreDoor(settings).forget(found.customer)
    yield Removed("feast/offline", removed.offline, int(removed.offline > 0))
    yield Removed("feast/online", removed.online)


def _erase_sources(home: ModelHome, columns: Columns, found: Found, at: datetime) -> Iterator[Removed]:
    """What bears the customer's id; the inbox comes last, for a change in it starts a run."""
    segments = sorted(home.predictions.glob("*.ndjson"))
    yield erase_from_log(_name(home.predictions), segments, "customer_id", {found.customer}, found)
    for folder in (home.labelled, home.validated, home.quarantine):
        yield erase_from_tables(_name(folder), sorted(folder.glob("*.parquet")), found)
    files = home.quarantine / "files"
    yield erase_from_tables(_name(files), sorted(files.glob("*")), found, columns)
    yield erase_from_snapshots(_name(home.snapshots), home.snapshots, found, at)
    inbox = home.incoming / "messages"
    yield erase_from_tables(_name(inbox), inbox_files(inbox), found, columns)


def _erase_events(settings: Settings, found: Found) -> Iterator[Removed]:
    quarantine = settings.quarantine
    for folder in (quarantine / "customer_events", quarantine / "files", settings.customer_events):
        yield erase_from_tables(str(folder.relative_to(settings.home)), sorted(folder.glob("*")), found)


def _write_pages_again(settings: Settings) -> None:
    """The page of each model that quotes its quarantine."""
    from mlops_assets.report.quality_page import write_quality_page

    for spec in find_specs(settings.models_dir):
        if (settings.model_home(spec.name).reports / "data_quality.html").exists():
            write_quality_page(settings.model_home(spec.name), spec)


def _in_flight(settings: Settings, since: datetime | None = None) -> tuple[str, ...]:
    """Runs of the home's Dagster that have not ended, or that began `since` then."""
    if not (settings.dagster_home / "dagster.yaml").exists():
        return ()
    import dagster as dg
    from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

    which = dg.RunsFilter(created_after=since) if since else dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)
    with dagster_instance(settings) as instance:
        return tuple(run.run_id[:8] for run in instance.get_runs(which))


def _name(folder: Path) -> str:
    """A store's name for people: its path under the home."""
    return str(folder).rpartition("/models/")[2]
