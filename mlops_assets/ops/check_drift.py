"""Two files in, a verdict out: what `mlops check-drift` does, without its printing."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from mlops_assets.data.tables import read_table
from mlops_assets.declarations import load_spec
from mlops_assets.report.comparison import CannotCompare, Comparison, Table, compare
from mlops_assets.report.roles import infer_times, infer_types
from mlops_assets.spec import DriftSpec
from mlops_assets.verdict import Verdict

DEFAULT_ALPHA = 0.05
EXIT_CODES = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.INSUFFICIENT_DATA: 2, Verdict.ERROR: 2}


def find_limits(spec: Path | None, threshold: float | None) -> DriftSpec:
    """The `drift:` section of a model's defs.yaml, or the defaults; `threshold` goes before either's error rate.

    Raises:
        SpecError: the file is no spec.
        CannotCompare: the threshold is no error rate.
    """
    limits = load_spec(spec).drift if spec else DriftSpec(alpha=DEFAULT_ALPHA)
    try:
        return limits if threshold is None else DriftSpec(**{**limits.model_dump(), "alpha": threshold})
    except ValidationError as error:
        raise CannotCompare(f"--threshold {threshold:g} is no error rate: give one between 0 and 1") from error


def compare_files(reference: Path, current: Path, limits: DriftSpec, ignore: Collection[str]) -> Comparison:
    """Read two files and compare them.

    Raises:
        UnreadableFile: a file is not the table that its name promises.
        CannotCompare: they have nothing that could be compared.
    """
    by_name = reference.name != current.name
    tables = [_read(path, path.name if by_name else str(path)) for path in (reference, current)]
    return compare(tables[0], tables[1], limits, ignore)


def _read(path: Path, name: str) -> Table:
    frame = read_table(path)
    return Table(name, infer_types(frame) if path.suffix.lower() == ".csv" else infer_times(frame))
