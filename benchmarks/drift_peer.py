"""Times Evidently reports on columns of two parquet files; runs in an environment that `drift.py` makes for it.

Knows nothing of this project. A line of input is {"column", "method"}, a line of output {"seconds", "figure"},
where seconds are of CPU time.
"""

from __future__ import annotations

import json
import sys
import time

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift


def dataset(path: str, column: str) -> Dataset:
    """One column, declared as what its type says; made before the clock runs."""
    frame = pd.read_parquet(path, columns=[column])
    kind = "numerical_columns" if frame[column].dtype.kind == "f" else "categorical_columns"
    return Dataset.from_pandas(frame, DataDefinition(**{kind: [column]}))


def main() -> None:
    """Answer until the input ends."""
    reference, current = sys.argv[1:]
    columns: dict[str, tuple[Dataset, Dataset]] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        column = asked["column"]
        if column not in columns:
            columns[column] = dataset(reference, column), dataset(current, column)
        before, now = columns[column]
        began = time.process_time()
        run = Report([ValueDrift(column=column, method=asked["method"])]).run(now, before)
        seconds = time.process_time() - began
        figure = float(run.dict()["metrics"][0]["value"])
        print(json.dumps({"seconds": seconds, "figure": figure}), flush=True)


if __name__ == "__main__":
    main()
