"""A gate decision under another policy: the recorded inputs, judged again.

The rule is `release.gate`'s. What another policy would have had measured is said to be missing, never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlops_assets.release.gate import judge
from mlops_assets.release.latency import is_hopeless
from mlops_assets.replay.history import Gated
from mlops_assets.spec import GateSpec
from mlops_assets.verdict import Verdict


@dataclass(frozen=True)
class GateAgain:
    """What a gate says: `released` is None where it cannot be replayed; `reason` says why."""

    verdict: Verdict | None
    released: bool | None
    reason: str


def judge_again(gated: Gated, policy: GateSpec) -> GateAgain:
    """Judge the inputs of a recorded decision under `policy`."""
    decision = judge(gated.inputs, policy)
    missing = _missing(gated, policy)
    blocking = [claim for claim in decision.claims if not claim.verdict.ok]
    wanting = [claim for claim in blocking if claim.verdict is Verdict.INSUFFICIENT_DATA]
    if missing and blocking and len(wanting) == len(blocking) and not decision.released:
        return GateAgain(None, None, f"{missing}: {wanting[0].name}: {wanting[0].message}")
    return GateAgain(decision.verdict, decision.released, decision.summary)


def _missing(gated: Gated, policy: GateSpec) -> str:
    """What was not measured because the limit of the day made it pointless; empty where nothing is missing."""
    latencies = gated.inputs.latencies_ms
    if latencies is None:
        return ""
    then, now = (is_hopeless(latencies, spec.max_latency_ms, spec.latency_percentile) for spec in (gated.spec, policy))
    if not then or now:
        return ""
    return (
        f"too slow for the limit of the day, it was measured on {latencies.size} calls and asked only "
        f"{gated.inputs.truth.size} test rows"
    )
