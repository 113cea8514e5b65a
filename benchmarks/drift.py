"""How long a window of a million rows takes to judge, beside plain scipy and Evidently on the same column.

    python benchmarks/drift.py [--rows 1000000] [--evidently PYTHON]

Evidently is no dependency of this project: give the interpreter of an environment that has it, and it is timed
there, on the same values. Each figure is the best of three, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
from scipy.stats import ks_2samp, wasserstein_distance

from mlops_assets.drift import jensen_shannon, psi, wasserstein
from mlops_assets.drift import kolmogorov_smirnov as ks
from mlops_assets.drift.columns import to_numbers
from mlops_assets.drift.counts import count_window
from mlops_assets.drift.frozen_bins import count_bins
from mlops_assets.drift.mmd import mmd
from mlops_assets.drift.profile import ReferenceProfile, Window, build_profile
from mlops_assets.drift.result import DriftResult, Limits
from mlops_assets.drift.window import judge_counts, judge_window
from mlops_assets.spec import DriftSpec

T = TypeVar("T")
EVIDENTLY = """
import json, sys, time
import numpy as np, pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift
reference, current = (pd.DataFrame({"value": np.load(path)}) for path in sys.argv[1:3])
definition = DataDefinition(numerical_columns=["value"])
reference, current = (Dataset.from_pandas(frame, definition) for frame in (reference, current))
answers = {}
for method in ("ks", "psi", "wasserstein", "jensenshannon"):
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run = Report([ValueDrift(column="value", method=method)]).run(current, reference)
        value = run.dict()["metrics"][0]["value"]
        times.append(time.perf_counter() - start)
    answers[method] = [min(times), float(value)]
print(json.dumps(answers))
"""
LIMITS = Limits()


@dataclass(frozen=True)
class Line:
    """One statistic: our seconds and figure, and those of others where they have one."""

    name: str
    ours: float
    figure: float
    scipy: float | None = None
    evidently: str = ""


def best(work: Callable[[], T], repeats: int = 3) -> tuple[float, T]:
    """Shortest time of a few, in seconds, and what the work gave."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        answer = work()
        times.append(time.perf_counter() - start)
    return min(times), answer


def one_column(profile: ReferenceProfile, raw: np.ndarray, values: np.ndarray) -> list[Line]:
    """Each statistic of one column with the profile in hand; others get both samples unsorted."""
    column = profile.numeric["n0"]
    reference = column.values

    def by_ks() -> DriftResult:
        return ks.compare_sorted(reference, np.sort(to_numbers(values, "n0").values), LIMITS, "n0")

    def binned(judge: Callable[..., DriftResult]) -> Callable[[], DriftResult]:
        return lambda: judge(column.counts, count_bins(column.edges, values), LIMITS, "n0")

    def by_wasserstein() -> DriftResult:
        return wasserstein.compare_sorted(reference, np.sort(values), LIMITS, "n0")

    for warm_up in (by_ks, by_wasserstein):  # loads the compiled merge
        warm_up()
    lines = []
    for name, work, plain, theirs in (
        ("KS", by_ks, lambda: ks_2samp(raw, values, method="asymp"), "ks"),
        ("PSI", binned(psi.from_counts), None, "psi"),
        ("Wasserstein", by_wasserstein, lambda: wasserstein_distance(raw, values), "wasserstein"),
        ("Jensen-Shannon", binned(jensen_shannon.from_counts), None, "jensenshannon"),
    ):
        seconds, result = best(work)
        figure = result.p_value if name == "KS" else result.statistic
        lines.append(Line(name, seconds, float(figure or 0), best(plain, 1)[0] if plain else None, theirs))
    return lines


def evidently_times(python: str, reference: np.ndarray, current: np.ndarray) -> dict[str, tuple[float, float]]:
    """Seconds and figure of an Evidently report per statistic, measured in its own environment."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("reference.npy", "current.npy")]
        for path, values in zip(paths, (reference, current), strict=True):
            np.save(path, values)
        done = subprocess.run([python, "-c", EVIDENTLY, *paths], check=True, capture_output=True, text=True)
    return {name: (seconds, value) for name, (seconds, value) in json.loads(done.stdout.splitlines()[-1]).items()}


def make_window(rows: int, seed: int) -> Window:
    """20 numeric and 10 categorical columns."""
    rng = np.random.default_rng(seed)
    names = np.array([f"shop {k}" for k in range(20)])
    features: dict[str, np.ndarray | pl.Series] = {f"n{k}": rng.normal(0.001 * seed, 1, rows) for k in range(20)}
    features |= {f"c{k}": pl.Series(names[rng.integers(0, 20, rows)]) for k in range(10)}
    return Window(features=features)


def in_chunks(profile: ReferenceProfile, rows: int, chunk: int) -> float:
    """Seconds to count and judge `rows` rows of 30 columns chunk by chunk, making of the rows left out."""
    counting, parts = 0.0, []
    for seed in range(max(rows // chunk, 1)):
        window = make_window(chunk, seed)
        seconds, counts = best(lambda window=window: count_window(profile, window), 1)
        counting += seconds
        parts.append(counts)
    return counting + best(lambda: judge_counts(profile, reduce(add, parts), DriftSpec()), 1)[0]


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--chunked-rows", type=int, default=10_000_000)
    parser.add_argument("--evidently", metavar="PYTHON", help="interpreter of an environment with Evidently")
    options = parser.parse_args()

    reference, window = make_window(options.rows, 0), make_window(options.rows, 1)
    profile = build_profile(reference)
    before, now = np.asarray(reference.features["n0"]), np.asarray(window.features["n0"])
    peers = evidently_times(options.evidently, before, now) if options.evidently else {}
    print(f"one column, {options.rows:,} rows against {options.rows:,}, milliseconds (times as long as ours)")
    for line in one_column(profile, before, now):
        plain = f"{line.scipy * 1e3:.0f} ({line.scipy / line.ours:.0f} x)" if line.scipy else "-"
        peer = "-"
        if line.evidently in peers:
            theirs, value = peers[line.evidently]
            peer = f"{theirs * 1e3:.0f} ({theirs / line.ours:.0f} x), says {value:.6g}"
        print(f"{line.name:15} ours {line.ours * 1e3:7.1f}, says {line.figure:.6g} | scipy {plain} | Evidently {peer}")
    print(f"window of 30 columns: {best(lambda: judge_window(profile, window, DriftSpec()))[0]:.2f} s")
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 2000, 384)).astype(np.float32)
    print(f"MMD, 2 x 2,000 x 384, 999 permutations: {best(lambda: mmd(first, second, LIMITS))[0]:.2f} s")
    chunk = min(options.rows, options.chunked_rows)
    seconds = in_chunks(profile, options.chunked_rows, chunk)
    print(f"{options.chunked_rows:,} rows of 30 columns in chunks: {seconds:.1f} s")
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
