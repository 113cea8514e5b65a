"""How fast the loop turns: loading the graph, and from a drift result to the start of the retraining run.

The second figure is read from the event log of a home in which a loop ran (`make demo` leaves one), so it is what
really happened there: python benchmarks/loop.py [--home var]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg

from mlops_assets.lineage.signals import DECISION_TAG
from mlops_assets.ops.setup import dagster_instance
from mlops_assets.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
LOADS = 5
LOAD_GOAL, TURN_GOAL = 3.0, 10.0  # seconds


def load_seconds() -> list[float]:
    """Wall-clock seconds of importing the definitions in a fresh process, which a code server then does not leave."""
    code = "import os, mlops_assets.definitions; os._exit(0)"  # else its clearing up, most of a second, is timed too
    seconds = []
    for _ in range(LOADS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    return seconds


def turn_seconds(instance: dg.DagsterInstance, model: str) -> list[float]:
    """Seconds from the last drift materialization before each automatic training run to the start of that run."""
    drift = instance.fetch_materializations(dg.AssetKey([model, "embedding_drift"]), limit=5000).records
    found = []
    for record in instance.get_run_records(dg.RunsFilter(job_name=f"{model}_retrain"), limit=1000):
        if DECISION_TAG not in record.dagster_run.tags or record.start_time is None:
            continue
        before = [event.timestamp for event in drift if event.timestamp < record.start_time]
        if before:
            found.append(record.start_time - max(before))
    return found


def main() -> None:
    """Print both figures beside their goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=ROOT / "var", help="a home in which a loop ran")
    parser.add_argument("--model", default="intent_classifier")
    arguments = parser.parse_args()
    loads = load_seconds()
    print(f"load the graph: median {statistics.median(loads):.2f} s of {LOADS} (goal {LOAD_GOAL:g} s)")
    with dagster_instance(Settings(home=arguments.home)) as instance:
        turns = turn_seconds(instance, arguments.model)
    shown = ", ".join(f"{seconds:.1f}" for seconds in turns) or "no retrain happened in this home"
    print(f"drift materialised to retrain started, s: {shown} (goal {TURN_GOAL:g} s)")


if __name__ == "__main__":
    main()
