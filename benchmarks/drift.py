"""How long a window of a million rows takes to judge, beside plain scipy and Evidently; writes docs/drift_speed.md.

    python benchmarks/drift.py [--rows 1000000] [--chunked-rows 10000000]

Evidently is no dependency of this project: an environment of its own is made for it in .venv-bench, once, and it
is timed there by `drift_peer.py` on the same parquet files. All sides take turns, so that other work on the
machine falls on each of them, and CPU time of all threads is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
import scipy
from scipy.stats import chi2_contingency, ks_2samp

from mlops_assets.drift import chi_squared, jensen_shannon, psi
from mlops_assets.drift import kolmogorov_smirnov as ks
from mlops_assets.drift.columns import to_categories, to_numbers
from mlops_assets.drift.counts import count_window
from mlops_assets.drift.frozen_bins import Divergence, count_bins, judge_counts
from mlops_assets.drift.mmd import mmd
from mlops_assets.drift.profile import NumericReference, ReferenceProfile, Window, build_profile
from mlops_assets.drift.result import DriftResult, Limits
from mlops_assets.drift.window import judge_counts as judge_counted
from mlops_assets.drift.window import judge_window
from mlops_assets.spec import DriftSpec

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "docs" / "drift_speed.md"
PEER = ROOT / ".venv-bench"
PEER_PACKAGES = (
    "evidently==0.7.23",
    "pandas==2.3.3",
    "pyarrow",
    f"numpy=={np.__version__}",
    f"scipy=={scipy.__version__}",
)
ROUNDS = 7
LIMITS = Limits()
NUMERIC, CATEGORICAL, SHOPS = 20, 10, 20

HEAD = """# Speed of the drift statistics

Made by `python benchmarks/drift.py` (rows: {rows:,}); do not edit. On {cores} cores of {processor}, Python {python},
numpy {numpy}, scipy {scipy}, {evidently}. One column: median milliseconds of CPU time, all threads together,
over {rounds} rounds in which all sides take turns; a ratio is one of medians. Ours has the reference profile in
hand, the others get both samples. The whole: seconds on the wall. Memory: the peak above an idle interpreter's.
"""

TABLE = (
    "| one column | ours, ms | says | scipy, ms | says | times ours | Evidently, ms | says | times ours |",
    "|---|---|---|---|---|---|---|---|---|",
)
GOALS = ("| whole | measured | goal | |", "|---|---|---|---|")


@dataclass(frozen=True)
class Side:
    """One statistic on one column, by us and by others."""

    name: str
    column: str
    ours: Callable[[], DriftResult]
    scipy: Callable[[], float] | None
    evidently: str
    goals: tuple[int, int]  # times as long as ours: scipy, Evidently; 0: none


@dataclass(frozen=True)
class Goal:
    """A figure that has to stay below its limit."""

    what: str
    value: float
    limit: float
    unit: str

    def line(self) -> str:
        """A row of the table."""
        goal = f"{self.limit:g} {self.unit} | {_said(self.value <= self.limit)}"
        return f"| {self.what} | {self.value:.2f} {self.unit} | {goal} |"


def write_columns(folder: Path, rows: int) -> tuple[Path, Path]:
    """Reference and current as parquet files: 20 numeric and 10 categorical columns."""
    paths = folder / "reference.parquet", folder / "current.parquet"
    for seed, path in enumerate(paths):
        make_columns(rows, seed).write_parquet(path)
    return paths


def make_columns(rows: int, seed: int) -> pl.DataFrame:
    """Seeded rows; another seed is a shift of 0.001 standard deviations, which a million rows just do not show."""
    rng = np.random.default_rng(seed)
    shops = np.array([f"shop {k}" for k in range(SHOPS)])
    numeric = {f"n{k}": rng.normal(0.001 * seed, 1, rows) for k in range(NUMERIC)}
    return pl.DataFrame(numeric | {f"c{k}": pl.Series(shops[rng.integers(0, SHOPS, rows)]) for k in range(CATEGORICAL)})


def window_of(frame: pl.DataFrame) -> Window:
    """A frame's columns as a window."""
    return Window(features={series.name: series for series in frame})


def sides(profile: ReferenceProfile, reference: pl.DataFrame, current: pl.DataFrame) -> list[Side]:
    """What is compared on one numeric and one categorical column."""
    numeric, mix = profile.numeric["n0"], profile.categorical["c0"].counts
    before, now, shops = reference["n0"].to_numpy(), current["n0"].to_numpy(), current["c0"]

    def by_ks() -> DriftResult:
        values = to_numbers(now, "n0").values
        return ks.from_distance(ks.distance(numeric.sample, values), len(numeric.values), len(values), LIMITS, "n0")

    def tables() -> float:
        counts = [frame["c0"].value_counts().sort("c0")["count"].to_numpy() for frame in (reference, current)]
        return float(chi2_contingency(np.stack(counts), correction=False).pvalue)

    return [
        Side("Kolmogorov-Smirnov", "n0", by_ks, lambda: ks_2samp(before, now, method="asymp").pvalue, "ks", (30, 50)),
        Side("PSI", "n0", partial(_binned, psi.DIVERGENCE, numeric, now), None, "psi", (0, 100)),
        Side(
            "Jensen-Shannon",
            "n0",
            partial(_binned, jensen_shannon.DIVERGENCE, numeric, now),
            None,
            "jensenshannon",
            (0, 0),
        ),
        Side(
            "chi-squared",
            "c0",
            lambda: chi_squared.chi_squared(mix, to_categories(shops, "c0").counts, LIMITS, column="c0"),
            tables,
            "chisquare",
            (0, 0),
        ),
    ]


def _binned(divergence: Divergence, numeric: NumericReference, now: np.ndarray) -> DriftResult:
    bins = count_bins(numeric.edges, to_numbers(now, "n0").values)
    return judge_counts(divergence, numeric.counts, bins, LIMITS, "n0")


class Peer:
    """Evidently in its own environment, asked line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def time(self, column: str, method: str) -> tuple[float, float]:
        """Seconds of a report, and the figure it gives."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"column": column, "method": method}), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        return answer["seconds"], answer["figure"]


@contextmanager
def peer(files: tuple[Path, Path]) -> Iterator[Peer]:
    """Start Evidently, in an environment that is made the first time."""
    python = PEER / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", PEER], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEER_PACKAGES], check=True)
    command = [python, ROOT / "benchmarks" / "drift_peer.py", *files]
    quiet = {**os.environ, "DO_NOT_TRACK": "1", "PYTHONPATH": ""}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet) as process:
        yield Peer(process)
        assert process.stdin is not None
        process.stdin.close()


def timed(work: Callable[[], T], clock: Callable[[], float] = time.perf_counter) -> tuple[float, T]:
    """Seconds, and what the work gave."""
    began = clock()
    answer = work()
    return clock() - began, answer


def median_seconds(work: Callable[[], object], rounds: int = 5) -> float:
    """Median of a few runs after one that warms up."""
    work()
    return statistics.median(timed(work)[0] for _ in range(rounds))


def compare(side: Side, evidently: Peer) -> str:
    """All sides in turn; a row of the table."""
    result = side.ours()  # loads what is compiled
    evidently.time(side.column, side.evidently)  # reads its columns
    ours, theirs, peers, figure, said = [], [], [], 0.0, 0.0
    for _ in range(ROUNDS):
        ours.append(timed(side.ours, time.process_time)[0])
        if side.scipy:
            seconds, figure = timed(side.scipy, time.process_time)
            theirs.append(seconds)
        seconds, said = evidently.time(side.column, side.evidently)
        peers.append(seconds)
    own = statistics.median(ours)
    shown = result.p_value if side.evidently in ("ks", "chisquare") else result.statistic
    cells = [f"{side.name}", f"{own * 1e3:.1f}", f"{shown:.5g}"]
    for times, value, goal in ((theirs, figure, side.goals[0]), (peers, said, side.goals[1])):
        cells += _other(times, value, goal, own)
    return "| " + " | ".join(cells) + " |"


def _other(times: list[float], figure: float, goal: int, own: float) -> list[str]:
    if not times:
        return ["", "", ""]
    ratio = statistics.median(times) / own
    aim = f" (goal {goal} x: {_said(ratio >= goal)})" if goal else ""
    return [f"{statistics.median(times) * 1e3:.0f}", f"{figure:.5g}", f"{ratio:.0f} x{aim}"]


def _said(met: bool) -> str:
    return "met" if met else "**missed**"


def in_a_process_of_its_own(work: Callable[..., T], *arguments: object) -> T:
    """Run where nothing else has used memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def memory(which: str) -> int:
    """Bytes of this process: VmRSS as they are, VmHWM at their peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{which}:"))


def window_memory(profile: Path, current: Path) -> float:
    """Peak memory of judging a window, all included, in sizes of window and reference."""
    idle = memory("VmRSS")
    frame = pl.read_parquet(current)
    judge_window(ReferenceProfile.load(profile), window_of(frame), DriftSpec())
    return (memory("VmHWM") - idle) / (2 * frame.estimated_size())


def in_chunks(profile_path: Path, current: Path, rows: int) -> tuple[float, float]:
    """Seconds to count one file again and again and judge; peak memory in sizes of that file and the reference."""
    idle, profile = memory("VmRSS"), ReferenceProfile.load(profile_path)
    seconds, counted = 0.0, None
    while not counted or counted.rows < rows:
        frame = pl.read_parquet(current)
        spent, part = timed(lambda frame=frame: count_window(profile, window_of(frame)))
        merging, counted = timed(lambda sofar=counted, part=part: sofar + part if sofar else part)
        seconds += spent + merging
    seconds += timed(lambda: judge_counted(profile, counted, DriftSpec()))[0]
    return seconds, (memory("VmHWM") - idle) / (2 * frame.estimated_size())


def whole(profile: ReferenceProfile, saved: Path, current: Path, options: argparse.Namespace) -> list[Goal]:
    """The figures that are not of one column."""
    window = window_of(pl.read_parquet(current))
    first, second = np.random.default_rng(0).normal(size=(2, 2000, 384)).astype(np.float32)
    seconds, peak = in_a_process_of_its_own(in_chunks, saved, current, options.chunked_rows)
    return [
        Goal(
            f"window of {NUMERIC + CATEGORICAL} columns, {options.rows:,} rows",
            median_seconds(lambda: judge_window(profile, window, DriftSpec())),
            1.5,
            "s",
        ),
        Goal(
            "MMD, 2 x 2,000 vectors of 384 dimensions, 1,000 permutations",
            median_seconds(lambda: mmd(first, second, LIMITS, permutations=1000)),
            1.5,
            "s",
        ),
        Goal(
            "peak memory of that window",
            in_a_process_of_its_own(window_memory, saved, current),
            3,
            "x window and reference",
        ),
        Goal(f"{options.chunked_rows:,} rows in chunks of {options.rows:,}", seconds, 15, "s"),
        Goal("peak memory of those chunks", peak, 3, "x chunk and reference"),
    ]


def processor() -> str:
    """The processor's name, as far as the system tells."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def report(options: argparse.Namespace, folder: Path) -> str:
    """Measure everything; the document."""
    files = write_columns(folder, options.rows)
    reference, current = (pl.read_parquet(path) for path in files)
    profile = build_profile(window_of(reference))
    saved = profile.save(folder / "reference.safetensors")
    with peer(files) as evidently:
        rows = [compare(side, evidently) for side in sides(profile, reference, current)]
    goals = [goal.line() for goal in whole(profile, saved, files[1], options)]
    head = HEAD.format(
        rows=options.rows,
        cores=os.cpu_count(),
        processor=processor(),
        python=platform.python_version(),
        numpy=np.__version__,
        scipy=scipy.__version__,
        evidently=PEER_PACKAGES[0].replace("==", " "),
        rounds=ROUNDS,
    )
    return "\n".join([head, *TABLE, *rows, "", *GOALS, *goals, ""])


def main() -> None:
    """Measure, print and write the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--chunked-rows", type=int, default=10_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        document = report(options, Path(folder))
    OUTPUT.write_text(document)
    print(document)


if __name__ == "__main__":
    main()
