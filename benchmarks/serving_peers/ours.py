"""The product's own endpoint as a contestant: a home with two versions, a canary that lasts, a filled feature store.

Nothing is switched off: the split is sticky, every answer is in the log before it leaves, features come from Feast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import yaml

from mlops_assets.declarations import find_specs
from mlops_assets.ops.setup import prepare
from mlops_assets.resources.feast import FeatureStoreDoor
from mlops_assets.resources.registry import Registry
from mlops_assets.settings import Settings
from mlops_assets.spec import ModelSpec

from .models import Exported, Message, Models, features

# No verdict while it is measured: load as such makes answers slow here, and is not the canary's fault.
POLICY = {"weights": [0.10], "minutes": 600.0, "max_minutes": 1200.0, "max_p99_ms": 60_000.0}


def make_home(folder: Path, spec: ModelSpec, models: Models, customers: Sequence[Message]) -> Settings:
    """Settings of a prepared home: version 1 in production, version 2 on trial, every customer in the store."""
    declared = folder / "models_dir" / spec.name
    declared.mkdir(parents=True)
    document = {"type": "x", "attributes": {"name": spec.name, "canary": POLICY}}
    (declared / "defs.yaml").write_text(yaml.safe_dump(document))
    settings = Settings(_env_file=None, home=folder, models_dir=folder / "models_dir")
    prepare(settings)
    registry = Registry(settings)
    _register(registry, spec.name, models.stable, "production")
    _register(registry, spec.name, models.canary, "canary")
    FeatureStoreDoor(settings).push(features(spec, customers, datetime.now(UTC)))
    return settings


@dataclass(frozen=True)
class Answers:
    """What the endpoint logged."""

    rows: pl.DataFrame

    @property
    def total(self) -> int:
        return self.rows.height

    def share(self, column: str, value: str) -> float:
        """Share of the answers with this value, 0..1."""
        return float((self.rows[column] == value).mean() or 0.0)


def answers(settings: Settings) -> Answers | None:
    """`arm` and `features_source` of every answer in the log, or None where nothing was asked."""
    (spec,) = find_specs(settings.models_dir)
    segments = sorted(settings.model_home(spec.name).predictions.glob("*.ndjson"))
    schema = {"arm": pl.String(), "features_source": pl.String()}
    parts = [pl.read_ndjson(path, schema=schema) for path in segments if path.stat().st_size]
    return Answers(pl.concat(parts)) if parts else None


def _register(registry: Registry, model: str, exported: Exported, alias: str) -> None:
    version = registry.register(model, None, exported.folder, exported.digest, "benchmark", {"gate": "pass"})
    registry.attach_evidence(model, version.version, "gate", {"verdict": "pass"})
    registry.move_alias(model, alias, version.version, expected=None, evidence_name="gate")
