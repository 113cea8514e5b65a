"""Reads the Feast repository as it stands and turns it into an open store, for any home in the settings.

The in-process counterpart of the `feast` command: the same files, the same objects, without its eight seconds and
without a change of directory. It knows the layout of ``feature_repo/``; what the features mean is left to the door.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from unittest.mock import patch

import yaml

from mlops_assets.imports import without

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView
    from feast.repo_contents import RepoContents

_IMPORTING = threading.RLock()


@dataclass(frozen=True)
class Applied:
    """What one `apply` left in the registry, and what it took out."""

    services: tuple[str, ...]
    deleted: tuple[str, ...]


@dataclass(frozen=True)
class Repository:
    """The declared objects, and the configuration text that belongs to this home."""

    contents: RepoContents
    configuration: str

    def view(self, name: str) -> FeatureView:
        return next(view for view in self.contents.feature_views if view.name == name)


def import_feast() -> None:
    """Import Feast in one second instead of five, and in half the memory; to be called before any other import of it.

    Left out are the run-time type checks of its constructors, which take long to make, and torch, which it imports
    only to answer in tensors.
    """
    if "feast" in sys.modules:
        return
    import typeguard

    with _IMPORTING, without("torch"), patch.object(typeguard, "typechecked", lambda target: target):
        importlib.import_module("feast")


def load_repository(repo: Path, home: Path) -> Repository:
    """Import the files of `repo` afresh, as the `feast` command would with ``MLOPS_HOME`` set to `home`."""
    with _imported(repo, home) as modules:
        configuration = modules["state"].relocated(home)
        return Repository(contents=_collect(modules, configuration), configuration=configuration)


@lru_cache(maxsize=8)
def open_store(repo: Path, configuration: str) -> FeatureStore:
    """The process's one `FeatureStore` for a configuration."""
    from feast import FeatureStore
    from feast.repo_config import RepoConfig

    config = RepoConfig(**yaml.safe_load(os.path.expandvars(configuration)))
    config.repo_path = repo
    return FeatureStore(config=config)


def apply_repository(store: FeatureStore, repository: Repository) -> Applied:
    """Make registry and online tables equal to the declared objects; what is no longer declared is deleted.

    Everything is applied each time, not only what changed, so that a lost online table comes back.
    """
    from feast.repo_operations import extract_objects_for_apply_delete

    contents = repository.contents
    _, deleted, _, _ = extract_objects_for_apply_delete(store.project, store.registry, contents)
    declared = [
        *contents.projects,
        *contents.data_sources,
        *contents.entities,
        *contents.feature_views,
        *contents.feature_services,
    ]
    store.apply(declared, objects_to_delete=deleted, partial=False)
    return Applied(
        services=tuple(sorted(service.name for service in contents.feature_services)),
        deleted=tuple(sorted(item.name for item in deleted)),
    )


@contextmanager
def _imported(repo: Path, home: Path) -> Iterator[dict[str, ModuleType]]:
    """The repository's modules; neither `sys.path`, `sys.modules` nor the environment remember them afterwards."""
    names = sorted(path.stem for path in repo.glob("*.py"))
    with _IMPORTING, _environment("MLOPS_HOME", str(home)):
        import_feast()
        hidden = {name: sys.modules.pop(name) for name in names if name in sys.modules}
        sys.path.insert(0, str(repo))
        try:
            yield {name: importlib.import_module(name) for name in names}
        finally:
            sys.path.remove(str(repo))
            for name in names:
                sys.modules.pop(name, None)
            sys.modules.update(hidden)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable for a while; untouched where it already says so, the ordinary case."""
    before = os.environ.get(name)
    if before == value:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _collect(modules: dict[str, ModuleType], configuration: str) -> RepoContents:
    from feast import Entity, FeatureService, FeatureView, Project
    from feast.data_source import DataSource
    from feast.feature_view import DUMMY_ENTITY
    from feast.repo_contents import RepoContents

    found = list({id(item): item for module in modules.values() for item in vars(module).values()}.values())
    return RepoContents(
        projects=[Project(name=yaml.safe_load(configuration)["project"])],
        data_sources=[item for item in found if isinstance(item, DataSource)],
        entities=[*(item for item in found if isinstance(item, Entity)), DUMMY_ENTITY],
        feature_views=[item for item in found if isinstance(item, FeatureView)],
        feature_services=[item for item in found if isinstance(item, FeatureService)],
        on_demand_feature_views=[],
        stream_feature_views=[],
        label_views=[],
        permissions=[],
    )
