"""Judges a day again from the statistics that are kept of it, under other limits.

P-values, effects and sample sizes do not depend on the limits, so verdicts and corrections can be made anew from a
drift document alone. What another policy would have had to compute first is said to be unknown, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

from mlops_assets.drift import mmd
from mlops_assets.drift.result import DriftResult, Limits, decide, insufficient, too_small
from mlops_assets.drift.window import GroupDrift, effect_floor, judge_group
from mlops_assets.spec import DriftSpec
from mlops_assets.verdict import Verdict, joint


@dataclass(frozen=True)
class DayAgain:
    """A day under other limits.

    Attributes:
        verdict: None where it cannot be known; a drift of one group is one of the day, whatever the others say.
        groups: by name, those that could be judged.
        unknown: why the others could not, one reason each.
    """

    verdict: Verdict | None
    groups: Mapping[str, GroupDrift]
    unknown: tuple[str, ...] = ()


def judge_again(document: Mapping[str, Any], own: DriftSpec, policy: DriftSpec) -> DayAgain:
    """The verdict on a kept day that `policy` gives; `own` is the spec under which its statistics were computed.

    >>> result = {
    ...     "statistic_name": "psi", "column": "spend", "statistic": 0.3, "p_value": 0.001, "threshold": 0.2,
    ...     "effect": 0.3, "n_reference": 200, "n_current": 200, "method": "", "verdict": "fail",
    ... }
    >>> day = {"groups": {"feature": {"verdict": "fail", "alpha": 0.01, "results": [result]}}}
    >>> judge_again(day, DriftSpec(), DriftSpec()).verdict.value
    'fail'
    >>> judge_again(day, DriftSpec(), DriftSpec(psi=0.5)).verdict.value
    'pass'
    """
    stored = {name: [_result(kept) for kept in group["results"]] for name, group in document["groups"].items()}
    limits = Limits(alpha=policy.alpha / max(len(stored), 1), min_rows=policy.min_rows)
    reasons = {name: tuple(_unknown(results, own, policy, limits)) for name, results in stored.items()}
    groups = {
        name: judge_group(name, [_again(result, policy, limits) for result in results], limits)
        for name, results in stored.items()
        if not reasons[name]
    }
    unknown = tuple(dict.fromkeys(reason for found in reasons.values() for reason in found))
    verdict = joint(group.verdict for group in groups.values())
    return DayAgain(verdict if not unknown or verdict is Verdict.FAIL else None, groups, unknown)


def as_document(document: Mapping[str, Any], again: DayAgain) -> dict[str, Any]:
    """The day's document with the verdicts made again; only of a day that could be judged."""
    groups = {
        name: {"verdict": group.verdict, "alpha": group.alpha, "results": [asdict(r) for r in group.results]}
        for name, group in again.groups.items()
    }
    return {**document, "verdict": again.verdict, "groups": groups}


def _result(kept: Mapping[str, Any]) -> DriftResult:
    return DriftResult(**{**kept, "verdict": Verdict(kept["verdict"])})


def _again(result: DriftResult, policy: DriftSpec, limits: Limits) -> DriftResult:
    n, m = result.n_reference, result.n_current
    if result.verdict is Verdict.ERROR:
        return result
    if too_small(n, m, limits):
        return insufficient(result.statistic_name, result.column, n, m, limits)
    assert result.p_value is not None
    assert result.effect is not None
    floor = effect_floor(result.statistic_name, policy) or 0.0
    judged = Limits(limits.alpha, floor, limits.min_rows)
    return replace(result, verdict=decide(result.p_value, result.effect, judged), message="")


def _unknown(results: list[DriftResult], own: DriftSpec, policy: DriftSpec, limits: Limits) -> Iterator[str]:
    """Why a group cannot be judged from what is kept of it."""
    if not results:
        return  # a day without predictions: insufficient under any policy
    reference = (policy.reference_days, policy.reference_min_rows)
    if reference != (own.reference_days, own.reference_min_rows):
        yield f"no reference of {reference[0]:g} days and {reference[1]} rows or more was made"
    for result in results:
        if result.verdict is Verdict.ERROR or too_small(result.n_reference, result.n_current, limits):
            continue
        if result.p_value is None:
            rows = min(result.n_reference, result.n_current)
            yield f"{result.statistic_name} of {result.column} was never computed: {rows} rows were too few then"
        elif result.statistic_name == mmd.NAME:
            yield from _other_mmd(result, own, policy, limits)


def _other_mmd(result: DriftResult, own: DriftSpec, policy: DriftSpec, limits: Limits) -> Iterator[str]:
    """MMD rests on rows and permutations that were drawn; more of them, or others, would say something else."""
    if (policy.mmd_rows, policy.permutations) != (own.mmd_rows, own.permutations):
        yield f"MMD of {policy.mmd_rows} rows with {policy.permutations} permutations was never computed"
        return
    alpha_then = limits.alpha * own.alpha / policy.alpha  # of this group: the parts are the same
    drawn, needed = (max(own.permutations, ceil(1 / alpha) - 1) for alpha in (alpha_then, limits.alpha))
    assert result.p_value is not None
    assert result.effect is not None
    if needed > drawn and result.p_value > limits.alpha and result.effect >= policy.mmd_effect:
        yield f"MMD with {needed} permutations, which an error rate of {limits.alpha:.2g} takes, was never computed"
