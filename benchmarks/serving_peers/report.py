"""Turns what was measured into the page and the plot in ``docs/``."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import psutil

from .contestants import BENTOML, LITSERVE
from .load import Load

CONNECTIONS = (1, 8, 64)


@dataclass(frozen=True)
class Round:
    """One server, started once.

    `loads`, `cpu_ms` (per request, all its processes) and `pace_ms` (of the bare network meanwhile, see `pace`) are by
    number of connections.
    """

    ready_seconds: float
    loads: Mapping[int, Load]
    cpu_ms: Mapping[int, float]
    pss_mb: float
    pace_ms: Mapping[int, float]

    def at(self, pace_ms: float) -> Round:
        """As it would have been while the bare network took `pace_ms`."""
        slower = {n: self.pace_ms[n] / pace_ms for n in self.loads}
        loads = {
            n: replace(seen, per_second=seen.per_second * by, p50=seen.p50 / by, p99=seen.p99 / by)
            for n, seen, by in ((n, self.loads[n], slower[n]) for n in self.loads)
        }
        cpu_ms = {n: spent / slower[n] for n, spent in self.cpu_ms.items()}
        return Round(self.ready_seconds, loads, cpu_ms, self.pss_mb, dict.fromkeys(self.loads, pace_ms))


@dataclass(frozen=True)
class Row:
    """One server's rounds, or why there are none."""

    name: str
    title: str
    rounds: Sequence[Round]
    absent: str | None = None

    def median(self, figure: Callable[[Round], float]) -> float:
        """Over the rounds."""
        return statistics.median(map(figure, self.rounds))

    def per_second(self, connections: int) -> float:
        return self.median(lambda one: one.loads[connections].per_second)


def at_one_pace(rows: Sequence[Row]) -> list[Row]:
    """All figures at the median pace of the whole run."""
    pace_ms = statistics.median(pace for row in rows for one in row.rounds for pace in one.pace_ms.values())
    return [replace(row, rounds=[one.at(pace_ms) for one in row.rounds]) for row in rows]


def table(rows: Sequence[Row]) -> str:
    """One line a server; three figures in a cell are those at 1, 8 and 64 connections."""
    lines = [
        "| server | requests/s | p50 ms | p99 ms | CPU ms a request, at 8 | memory MB | s to ready |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(f"| {row.title} | {row.absent or _figures(row)} |")
    return "\n".join(lines)


def write(folder: Path, rows: Sequence[Row], remarks: Sequence[str], seconds: float) -> None:
    """Write ``serving_speed.md`` and its plot."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    plot(folder / "images" / "serving_speed.svg", [row for row in rows if row.rounds])
    rounds = max(len(row.rounds) for row in rows)
    page = PAGE.format(
        table=table(rows),
        goals=goals(rows),
        remarks="\n".join(f"- {remark}" for remark in remarks),
        seconds=f"{seconds:g}",
        rounds=rounds,
        machine=_machine(),
        versions=_versions(),
    )
    (folder / "serving_speed.md").write_text(page)


def goals(rows: Sequence[Row]) -> str:
    """Ours beside the others, as times their requests per second at 8 and 64 connections."""
    ran = {row.name: row for row in rows if row.rounds}
    lines = ["| ours against | at 8 | at 64 |", "|---|---|---|"]
    ours = [row for name, row in ran.items() if name.startswith("ours")]
    for name, row in ran.items():
        if ours and not name.startswith("ours"):
            best = (max(mine.per_second(n) for mine in ours) / row.per_second(n) for n in (8, 64))
            lines.append(f"| {row.title} | " + " | ".join(f"{ratio:.2f} x" for ratio in best) + " |")
    return "\n".join(lines)


def plot(path: Path, rows: Sequence[Row]) -> None:
    """Requests per second and p99 of each server, at 8 and at 64 connections."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "serving"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, sharey=True, figsize=(10, 0.5 * len(rows) + 1.2), layout="constrained")
    names = [row.name for row in rows][::-1]
    for shift, connections, colour in ((0.2, 8, "#4c78a8"), (-0.2, 64, "#f58518")):
        places = [place + shift for place in range(len(rows))]
        speeds = [row.per_second(connections) for row in rows][::-1]
        tails = [row.median(lambda one, n=connections: one.loads[n].p99) for row in rows][::-1]
        for axis, values in ((axes[0], speeds), (axes[1], tails)):
            bars = axis.barh(places, values, height=0.38, color=colour, label=f"{connections} connections")
            axis.bar_label(bars, fmt="%.0f", padding=2, fontsize=8)
    axes[0].set_yticks(range(len(rows)), names)
    axes[0].set_title("requests/s", loc="left")
    axes[1].set_title("p99, ms (logarithmic)", loc="left")
    axes[1].set_xscale("log")
    axes[0].legend(frameon=False, fontsize=8, loc="lower right")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.12)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _figures(row: Row) -> str:
    def three(figure: Callable[[Load], float], digits: int) -> str:
        values = (row.median(lambda one, n=n: figure(one.loads[n])) for n in CONNECTIONS)
        return " · ".join(f"{value:,.{digits}f}" for value in values)

    failed = sum(load.failed for one in row.rounds for load in one.loads.values())
    cells = [
        three(lambda load: load.per_second, 0) + (f" ({failed} failed)" if failed else ""),
        three(lambda load: load.p50, 1),
        three(lambda load: load.p99, 0),
        f"{row.median(lambda one: one.cpu_ms[8]):.2f}",
        f"{row.median(lambda one: one.pss_mb):,.0f}",
        f"{row.median(lambda one: one.ready_seconds):.1f}",
    ]
    return " | ".join(cells)


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = psutil.virtual_memory().total / 1e9
    return f"two cores of {models[0] if models else platform.processor() or 'a processor'}, {memory:.0f} GB of memory"


def _versions() -> str:
    ours = [f"{name} {version(name)}" for name in ("ray", "mlflow", "fastapi", "onnxruntime", "torch")]
    return ", ".join([*ours, *(pin.replace("==", " ") for pin in (BENTOML, LITSERVE))])


PAGE = """\
# How fast the endpoint is, beside what one would take instead

Written by `python benchmarks/serving.py`, which starts each server in turn, loads it and stops it; nothing here is
typed by hand. Three figures in a cell are those at 1, 8 and 64 connections.

{table}

![Requests per second and p99 of each server](images/serving_speed.svg)

{goals}

(the better of our two, in times the other's requests/s)

## How it was measured
- Machine: {machine}. {versions}.
- Every server runs the same MiniLM-L6 classifier on the same short messages of the embedded world, sent by 4,000
  customers in turn. Servers and load generator share the two cores.
- The ONNX servers run the same int8 weights. Ours, the two that are said to and `mlflow models serve` have them as the
  product exports and opens them, texts packed end to end; the others in the usual form, a batch padded to its longest
  text, with onnxruntime's defaults: the hand-tuned one in chunks of eight sorted by length, BentoML and LitServe the
  batches that they make themselves.
- wrk, keep-alive, each connection sends as soon as it was answered; {seconds} s a figure, after a warm-up. Medians of
  {rounds} rounds; in each round every server is started afresh, and every other round goes through them backwards.
- A shared machine is faster or slower from minute to minute. Right before and after each load the bare network runs
  on both cores, and the load's requests/s, latencies and CPU are told at the median of all these paces.
- CPU is user and system time of all the server's processes; memory is their proportional set size (PSS) after the
  load; ready is the first good answer, for ours one with features from the store while the canary takes its share.
{remarks}
"""
