"""What Dagster loads: every declared model, and nothing else."""

from __future__ import annotations

import dagster as dg

from mlops_assets.lineage.model import build_defs
from mlops_assets.settings import Settings
from mlops_assets.spec import find_specs


def load() -> dg.Definitions:
    """The graphs of all models under `settings.models_dir`."""
    settings = Settings()
    return dg.Definitions.merge(*(build_defs(spec, settings) for spec in find_specs(settings.models_dir)))


defs = load()
