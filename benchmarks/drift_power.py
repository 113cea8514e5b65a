"""False-alarm rate and power of every drift statistic by seeded simulation; writes docs/drift_error_rates.md.

    python benchmarks/drift_power.py [--repetitions 300] [--seed 7]

Rates without effect floors, so that the tests themselves are seen. In one repetition all statistics of a kind judge
the same rows, and the shifts move them, so that rates in a line differ by the shift alone.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy.stats import binom

from mlops_assets.drift.black_box_shift import black_box_shift
from mlops_assets.drift.catalogue import CATEGORICAL, NUMERIC, Categorical, Numeric
from mlops_assets.drift.missing import missing
from mlops_assets.drift.mmd import mmd
from mlops_assets.drift.result import DriftResult, Limits
from mlops_assets.verdict import Verdict

OUTPUT = Path(__file__).parents[1] / "docs" / "drift_error_rates.md"
SIZES = (50, 200, 1_000, 10_000)
SHIFTS = (0.0, 0.1, 0.3, 1.0)
REFERENCE = 10_000
LIMITS = Limits(alpha=0.01)
CATEGORIES = tuple("abcdefghij")
LABELS = ("query", "refund", "other")
MISSING, UNSEEN = 0.1, 0.1
DIMENSIONS, VECTORS = 32, 500
SLOW = {"mmd": 0.5}  # share of the repetitions

HEAD = """# Error rates of the drift statistics

Made by `python benchmarks/drift_power.py --repetitions {repetitions} --seed {seed}`; do not edit. Share of
{repetitions} windows ({slow} for MMD) that alarm at alpha {alpha:.0%} against {reference:,} reference rows, *without*
effect floors. Shift 0 is the false-alarm rate: a true rate of {alpha:.0%} shows as at most {most:.1%} ({most_slow:.1%}
for MMD) in 999 of 1,000 lines. Half-width of a 95% interval: {at_alpha:.1%} at a rate of {alpha:.0%}, {at_half:.1%}
at 50% ({slow_at_alpha:.1%} and {slow_at_half:.1%} for MMD).

What a shift s moves:

- numeric columns (standard normal): the mean, by s standard deviations
- categories (ten, equally frequent): log-weights, from -1.5 s to 1.5 s
- `unseen`: new categories get a share of {unseen} s
- `missing`: a share of {missing} rises by {missing} s
- `black_box_shift` (three softmax outputs of standard normal logits): the first logit, by s
- `mmd`: all means of {dimensions} dimensions, by s / sqrt({dimensions}); at most {vectors} rows a side, as in operation

| statistic | rows | {shifts} |
|---|---|{rule}|
"""

Trial = Callable[[np.random.Generator, int], list[DriftResult]]


def numeric(compare: Numeric, rng: np.random.Generator, rows: int) -> list[DriftResult]:
    """One repetition of a numeric statistic, a result per shift."""
    reference, window = rng.normal(size=REFERENCE), rng.normal(size=rows)
    return [compare(reference, window + shift, LIMITS) for shift in SHIFTS]


def categorical(compare: Categorical, rng: np.random.Generator, rows: int) -> list[DriftResult]:
    """One of a categorical statistic."""
    reference = _mix(rng, REFERENCE, np.zeros(len(CATEGORIES)))
    tilts = [shift * np.linspace(-1.5, 1.5, len(CATEGORIES)) for shift in SHIFTS]
    return [compare(reference, _mix(rng, rows, tilt), LIMITS) for tilt in tilts]


def unseen(rng: np.random.Generator, rows: int) -> list[DriftResult]:
    """One of the test for new categories."""
    reference = _mix(rng, REFERENCE, np.zeros(len(CATEGORIES)))
    news = [int(rng.binomial(rows, UNSEEN * shift)) for shift in SHIFTS]
    windows = [_mix(rng, rows - new, np.zeros(len(CATEGORIES))) | {"new": new} for new in news]
    return [CATEGORICAL["unseen"](reference, window, LIMITS) for window in windows]


def absent(rng: np.random.Generator, rows: int) -> list[DriftResult]:
    """One of the test for missing values."""
    reference = int(rng.binomial(REFERENCE, MISSING)), REFERENCE
    return [missing(reference, (int(rng.binomial(rows, MISSING * (1 + s))), rows), LIMITS) for s in SHIFTS]


def outputs(rng: np.random.Generator, rows: int) -> list[DriftResult]:
    """One of black-box shift detection."""
    reference, window = (rng.normal(size=(n, len(LABELS))) for n in (REFERENCE, rows))
    moved = [window + np.array([shift, 0.0, 0.0]) for shift in SHIFTS]
    return [black_box_shift(_softmax(reference), _softmax(logits), LABELS, LIMITS)[0] for logits in moved]


def vectors(rng: np.random.Generator, rows: int) -> list[DriftResult]:
    """One of MMD."""
    reference = rng.normal(size=(VECTORS, DIMENSIONS))
    window = rng.normal(size=(min(rows, VECTORS), DIMENSIONS))
    seed = int(rng.integers(1 << 30))
    moved = [window + shift / np.sqrt(DIMENSIONS) for shift in SHIFTS]
    return [mmd(reference, rows_, LIMITS, permutations=199, seed=seed) for rows_ in moved]


TRIALS: dict[str, Trial] = {
    **{name: partial(numeric, compare) for name, compare in NUMERIC.items()},
    **{f"{name} (categories)": partial(categorical, compare) for name, compare in CATEGORICAL.items()},
    "unseen": unseen,
    "missing": absent,
    "black_box_shift": outputs,
    "mmd": vectors,
}
del TRIALS["unseen (categories)"]  # a tilted mix has no new category


def _mix(rng: np.random.Generator, rows: int, log_weights: np.ndarray) -> dict[str, int]:
    weights = np.exp(log_weights)
    return dict(zip(CATEGORIES, map(int, rng.multinomial(rows, weights / weights.sum())), strict=True))


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True)


def line(name: str, rows: int, repetitions: int, seed: int) -> str:
    """One statistic at one window size."""
    rngs = np.random.default_rng([seed, rows]).spawn(repetitions)
    alarms = [[result.verdict is Verdict.FAIL for result in TRIALS[name](rng, rows)] for rng in rngs]
    return f"| {name} | {rows:,} | " + " | ".join(f"{rate:.1%}" for rate in np.mean(alarms, axis=0)) + " |"


def table(repetitions: int, seed: int) -> Sequence[str]:
    """All lines, computed on all cores."""
    cells = [(name, rows) for name in TRIALS for rows in SIZES]
    names, sizes = zip(*cells, strict=True)
    counts = [int(repetitions * SLOW.get(name, 1)) for name in names]
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # for the workers: each has a core
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        return list(pool.map(line, names, sizes, counts, [seed] * len(cells)))


def half_width(rate: float, repetitions: int) -> float:
    """Of a 95% interval for a share, by the normal law."""
    return float(1.96 * np.sqrt(rate * (1 - rate) / repetitions))


def main() -> None:
    """Simulate and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    fast, slow = options.repetitions, int(options.repetitions * SLOW["mmd"])
    head = HEAD.format(
        repetitions=fast,
        slow=slow,
        seed=options.seed,
        alpha=LIMITS.alpha,
        reference=REFERENCE,
        most=binom.ppf(0.999, fast, LIMITS.alpha) / fast,
        most_slow=binom.ppf(0.999, slow, LIMITS.alpha) / slow,
        at_alpha=half_width(LIMITS.alpha, fast),
        at_half=half_width(0.5, fast),
        slow_at_alpha=half_width(LIMITS.alpha, slow),
        slow_at_half=half_width(0.5, slow),
        unseen=UNSEEN,
        missing=MISSING,
        dimensions=DIMENSIONS,
        vectors=VECTORS,
        shifts=" | ".join(f"shift {shift:g}" for shift in SHIFTS),
        rule="|".join("---" for _ in SHIFTS),
    )
    OUTPUT.write_text(head + "\n".join(table(fast, options.seed)) + "\n")
    print(OUTPUT.read_text())


if __name__ == "__main__":
    main()
