"""The gate: what a candidate must prove before it may become a canary.

A pure function from recorded figures to a decision with three outcomes, each claim with its value, its limit
and the rows it needs. It measures nothing: predictions, latencies and leakage come from the caller.
"""

from __future__ import annotations

import numpy as np

from mlops_assets.release.calibration import expected_calibration_error
from mlops_assets.release.claim import Claim
from mlops_assets.release.comparison import judge_champion, judge_f1
from mlops_assets.release.gate_inputs import (
    Champion,
    ChampionUnavailable,
    FirstModel,
    GateDecision,
    GateInputs,
    MismatchedInputs,
    Waiver,
)
from mlops_assets.release.latency import is_slow, percentile_bound, queries_needed
from mlops_assets.release.leakage import judge_leakage
from mlops_assets.release.sequential import trials_needed
from mlops_assets.spec import GateSpec
from mlops_assets.verdict import Verdict, worst

__all__ = [
    "Champion",
    "ChampionUnavailable",
    "Claim",
    "FirstModel",
    "GateDecision",
    "GateInputs",
    "MismatchedInputs",
    "Waiver",
    "judge",
]


def judge(inputs: GateInputs, spec: GateSpec) -> GateDecision:
    """Judge a candidate. Only a pass of every claim is a pass; a missing figure is an error, never a pass.

    Examples
    --------
    >>> truth = np.arange(2500) % 5
    >>> inputs = GateInputs(
    ...     labels=("a", "b", "c", "d", "e"), truth=truth, predicted=truth, champion=FirstModel(),
    ...     probabilities=np.eye(5)[truth], latencies_ms=np.full(500, 8.0),
    ... )
    >>> judge(inputs, GateSpec()).summary
    'error: leakage: leakage was not looked for'
    """
    claims = (
        judge_f1(inputs, spec),
        *judge_champion(inputs, spec),
        judge_latency(inputs, spec),
        *judge_leakage(inputs.leakage, spec),
        judge_calibration(inputs, spec),
    )
    return GateDecision(worst(claim.verdict for claim in claims), claims, inputs.waiver)


def judge_latency(inputs: GateInputs, spec: GateSpec) -> Claim:
    """Claim: the latency percentile lies within the limit, by the early-stopping bound of its upper bound."""
    name = "latency.percentile"
    if inputs.latencies_ms is None or not np.isfinite(inputs.latencies_ms).all():
        message = "latencies were not measured"
        return Claim(name, Verdict.ERROR, None, spec.max_latency_ms, 0, None, message)
    rows = int(inputs.latencies_ms.size)
    over = int((inputs.latencies_ms > spec.max_latency_ms).sum())
    bound = percentile_bound(inputs.latencies_ms, spec.latency_percentile, spec.confidence)
    what = f"p{spec.latency_percentile * 100:g} of latency"
    if is_slow(inputs.latencies_ms, spec.max_latency_ms, spec.latency_percentile, spec.confidence):
        message = (
            f"{what} is above {spec.max_latency_ms:g} ms with {spec.confidence:.0%} confidence ({over} of {rows} "
            f"queries were)"
        )
        return Claim(name, Verdict.FAIL, bound, spec.max_latency_ms, rows, None, message)
    if bound is None:
        needed = queries_needed(over, spec.latency_percentile, spec.confidence)
        message = f"{rows} queries, {over} of them over {spec.max_latency_ms:g} ms; {needed} are needed to bound {what}"
        return Claim(name, Verdict.INSUFFICIENT_DATA, None, spec.max_latency_ms, rows, needed, message)
    message = (
        f"{what} is at most {bound:.1f} ms with {spec.confidence:.0%} confidence ({over} of {rows} queries over "
        f"{spec.max_latency_ms:g} ms); the limit is {spec.max_latency_ms:g} ms"
    )
    if bound <= spec.max_latency_ms:
        needed = queries_needed(over, spec.latency_percentile, spec.confidence)
        return Claim(name, Verdict.PASS, bound, spec.max_latency_ms, rows, needed, message)
    more = trials_needed(over / rows, 1.0 - spec.latency_percentile, spec.confidence)
    verdict = Verdict.FAIL if more is None else Verdict.INSUFFICIENT_DATA
    return Claim(name, verdict, bound, spec.max_latency_ms, rows, more, message)


def judge_calibration(inputs: GateInputs, spec: GateSpec) -> Claim:
    """Claim: the expected calibration error is within its limit."""
    name, rows = "calibration.error", inputs.truth.shape[0]
    table = inputs.probabilities
    if table is None or not np.isfinite(table).all():
        return Claim(name, Verdict.ERROR, None, spec.max_calibration_error, rows, None, "probabilities are missing")
    if rows < spec.min_test_rows:
        message = f"{rows} test rows; at least {spec.min_test_rows} are needed"
        return Claim(
            name, Verdict.INSUFFICIENT_DATA, None, spec.max_calibration_error, rows, spec.min_test_rows, message
        )
    error = expected_calibration_error(table, inputs.truth)
    verdict = Verdict.PASS if error <= spec.max_calibration_error else Verdict.FAIL
    message = (
        f"confidence and accuracy differ by {error:.4f} on average; at most {spec.max_calibration_error:g} is allowed"
    )
    return Claim(name, verdict, error, spec.max_calibration_error, rows, spec.min_test_rows, message)
