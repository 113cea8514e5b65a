"""Recorded inputs to a decision again: does what was recorded follow from them, claim by claim?

Pure: it judges documents. Whether their inputs are true of the stored rows and models is found out by the caller,
which hands in what it could not get, or found changed, as `Doubt`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import Any

from mlops_assets.release.ab import Comparison, Difference
from mlops_assets.release.claim import Claim
from mlops_assets.release.gate_inputs import GateDecision
from mlops_assets.release.rollout import Decision, Judgement, RolloutState, replay

_TOLERANCE = 1e-4  # of a figure computed again, perhaps on another processor


class State(StrEnum):
    """What became of one recorded claim."""

    FOLLOWS = "follows"
    DIFFERS = "differs"
    MISSING = "missing"  # it could not be recomputed

    @classmethod
    def worst(cls, states: Sequence[State]) -> State:
        """A difference outweighs what is missing; nothing at all is missing."""
        if cls.DIFFERS in states:
            return cls.DIFFERS
        return cls.MISSING if cls.MISSING in states or not states else cls.FOLLOWS


@dataclass(frozen=True)
class Doubt:
    """An input that is not there (`MISSING`) or is not the one that was judged (`DIFFERS`), and how to mend that."""

    state: State
    reason: str


@dataclass(frozen=True)
class Finding:
    """One claim of a recorded decision beside the same claim made again; `name` begins with the evidence's name."""

    name: str
    state: State
    recorded: str
    again: str
    message: str


def compare_gate(recorded: Mapping[str, Any], again: GateDecision, doubts: Mapping[str, Doubt]) -> tuple[Finding, ...]:
    """The gate's recorded decision beside the one made again.

    Parameters
    ----------
    recorded : as `GateDecision.to_dict` wrote it.
    doubts : first part of a claim's name -> why its input is in doubt.
    """
    claims = _compare_claims("gate", recorded["claims"], again.claims, doubts)
    told, now = (f"{d['verdict']}, {'released' if d['released'] else 'held'}" for d in (recorded, again.to_dict()))
    state = State.FOLLOWS if told == now else State.DIFFERS
    if any(doubt.state is State.MISSING for doubt in doubts.values()) and state is State.FOLLOWS:
        state = State.MISSING
    return (*claims, Finding("gate.verdict", state, told, now, "the verdict of all claims together"))


def replay_rollout(document: Mapping[str, Any]) -> tuple[Finding, ...]:
    """A rollout's evidence, each of its judgements made again on the counts, policy and time that were recorded.

    Raises
    ------
    KeyError, TypeError, ValueError : the document lacks a part; it was written by other code, or changed.
    """
    if "rollout" not in document:
        message = f"no counts to judge: {document['reason']}"
        return (Finding("rollout.verdict", State.FOLLOWS, document["outcome"], document["outcome"], message),)
    state = RolloutState.from_dict(document["rollout"])
    judged = replay(state)
    if not judged:
        told = state.phase.value
        return (Finding("rollout.verdict", State.FOLLOWS, told, told, f"not judged on counts: {state.reason}"),)
    return tuple(finding for judgement, decision in judged for finding in _compare_judgement(judgement, decision))


def _compare_judgement(judgement: Judgement, decision: Decision) -> tuple[Finding, ...]:
    name = f"rollout.step{len(judgement.steps)}"
    recorded = [{**asdict(claim), "verdict": claim.verdict.value} for claim in judgement.claims]
    state = State.FOLLOWS if judgement.action == decision.action else State.DIFFERS
    return (
        *_compare_claims(name, recorded, decision.claims, {}),
        *_compare_arms(f"{name}.ab", judgement.comparison, decision.comparison),
        Finding(f"{name}.verdict", state, judgement.action, decision.action, decision.reason),
    )


def _compare_arms(name: str, recorded: Comparison | None, again: Comparison | None) -> list[Finding]:
    """An A/B test's differences beside those computed again."""
    pairs = zip_longest(recorded.differences if recorded else (), again.differences if again else ())
    return [_compare_difference(name, told, now) for told, now in pairs]


def _compare_difference(name: str, told: Difference | None, now: Difference | None) -> Finding:
    said = told or now
    assert said is not None
    recorded, again = (difference.message if difference else "none" for difference in (told, now))
    figures = ("difference", "lower", "upper")
    same = told and now and all(_close(getattr(told, figure), getattr(now, figure)) for figure in figures)
    return Finding(f"{name}.{said.name}", State.FOLLOWS if same else State.DIFFERS, recorded, again, again)


def _compare_claims(
    evidence: str, recorded: Sequence[Mapping[str, Any]], again: Sequence[Claim], doubts: Mapping[str, Doubt]
) -> list[Finding]:
    by_name = {claim.name: claim for claim in again}
    told = {claim["name"] for claim in recorded}
    findings = [
        _compare(f"{evidence}.{claim['name']}", claim, by_name.get(claim["name"]), _doubt(claim["name"], doubts))
        for claim in recorded
    ]
    untold = [claim for claim in again if claim.name not in told]
    findings += [
        Finding(f"{evidence}.{claim.name}", State.DIFFERS, "not recorded", _shown(claim.verdict, claim.value), "")
        for claim in untold
    ]
    return findings


def _compare(name: str, recorded: Mapping[str, Any], again: Claim | None, doubt: Doubt | None) -> Finding:
    told = _shown(recorded["verdict"], recorded["value"])
    if doubt is not None:
        return Finding(name, doubt.state, told, "", doubt.reason)
    if again is None:
        return Finding(name, State.DIFFERS, told, "not made", "the recorded inputs give no such claim")
    same = recorded["verdict"] == again.verdict.value and _close(recorded["value"], again.value)
    state = State.FOLLOWS if same else State.DIFFERS
    return Finding(name, state, told, _shown(again.verdict, again.value), again.message)


def _doubt(claim: str, doubts: Mapping[str, Doubt]) -> Doubt | None:
    return doubts.get(claim.partition(".")[0])


def _close(recorded: float | None, again: float | None) -> bool:
    if recorded is None or again is None:
        return recorded is again
    return math.isclose(recorded, again, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)


def _shown(verdict: str, value: float | None) -> str:
    return str(verdict) if value is None else f"{verdict} ({value:.4g})"
