"""The stored data of a declared model as a report: what `mlops data-quality` does."""

from __future__ import annotations

from pathlib import Path

from polars.exceptions import PolarsError

from mlops_assets.declarations import SpecError, find_spec
from mlops_assets.report.quality_page import headline, quality_page
from mlops_assets.report.stored_data import read_stored
from mlops_assets.settings import Settings
from mlops_assets.storage import write_atomic


class DataUnreadable(ValueError):
    """There is no such model, or what lies in its home cannot be read; the message says which."""


def report_quality(settings: Settings, model: str, output: Path) -> str:
    """Write the report and say in one line what it says.

    Raises:
        DataUnreadable: the model is not declared, or a stored file is broken.
    """
    try:
        spec = find_spec(settings.models_dir, model)
    except SpecError as error:
        raise DataUnreadable(str(error)) from error
    home = settings.model_home(model)
    try:
        stored = read_stored(home)
        write_atomic(output, quality_page(home, spec, stored, output.parent).encode())
        return f"{headline(stored, spec)}\nreport: {output}"
    except (PolarsError, ValueError) as error:
        raise DataUnreadable(f"{home.root} cannot be read: {error}") from error
