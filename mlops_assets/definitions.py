"""What Dagster loads: every declared model (`models/*/defs.yaml`) and the policy for all of them."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from mlops_assets.declarations import find_specs
from mlops_assets.lineage.model import build_defs
from mlops_assets.settings import Settings


def _models(settings: Settings) -> dg.Definitions:
    """The declared models: this package's as components, or those of the folder that the settings name."""
    # Read first by our own reader, whose error names file, line, field and what is allowed.
    specs = find_specs(settings.models_dir)
    if settings.models_dir.resolve() == Path(__file__).resolve().parent / "models":
        return dg.load_from_defs_folder(path_within_project=Path(__file__))
    return dg.Definitions.merge(*(build_defs(spec, settings) for spec in specs))


defs = dg.Definitions.merge(
    _models(Settings()),
    # One process a run: the steps of a run follow each other, and a process for each would cost three seconds.
    dg.Definitions(executor=dg.in_process_executor),
)
