"""What Dagster loads: every declared model (`models/*/defs.yaml`) and the policy for all of them."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from mlops_assets.settings import Settings
from mlops_assets.spec import find_specs

# Read first by our own reader, whose error names file, line, field and what is allowed.
find_specs(Settings().models_dir)

defs = dg.Definitions.merge(
    dg.load_from_defs_folder(path_within_project=Path(__file__)),
    # One process a run: the steps of a run follow each other, and a process for each would cost three seconds.
    dg.Definitions(executor=dg.in_process_executor),
)
