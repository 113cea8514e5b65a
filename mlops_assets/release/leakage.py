"""The claims that nothing leaks: no row, no entity and no column gives the test labels away.

It judges what a search found (`mlops_assets.leaks`); that nothing was looked for, or could not be, is an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from mlops_assets.leaks import ColumnLeak, EntityLeak, Leakage
from mlops_assets.release.claim import Claim
from mlops_assets.spec import GateSpec
from mlops_assets.verdict import Verdict

ALPHA = 0.01
"""Probability that a set in which nothing leaks is said to leak, of each of the two tests."""

_ROWS: Mapping[str, str] = {
    "exact": "test rows repeat a training text",
    "near": "test rows nearly repeat a training text",
    "time.label": "rows have an event or a label that was not known yet when the snapshot was taken",
    "time.split": "rows are in another part than the declared split gives them",
    "time.feature": "rows have a feature value from after their message",
}
ROW_KINDS = tuple(_ROWS)


def judge_leakage(leakage: Leakage | None, spec: GateSpec) -> tuple[Claim, ...]:
    """Claims on rows (exact and near repetitions; time), on entities and on columns.

    The tests' error rates and nulls are stated where they are computed: `data.entity_leak`, `data.column_leak`.
    """
    if leakage is None:
        return (Claim("leakage", Verdict.ERROR, None, None, 0, None, "leakage was not looked for"),)
    rows = tuple(_rows(kind, leakage.rows.get(kind)) for kind in ROW_KINDS)
    return (*rows, _entity(leakage.entity, spec), _columns(leakage, spec))


def _rows(kind: str, count: int | None) -> Claim:
    name = f"leakage.{kind}"
    if count is None:
        return Claim(name, Verdict.ERROR, None, 0.0, 0, None, f"{kind} leakage could not be determined")
    verdict = Verdict.PASS if count == 0 else Verdict.FAIL
    return Claim(name, verdict, float(count), 0.0, count, None, f"{count} {_ROWS[kind]}; none may")


def _entity(found: EntityLeak | None, spec: GateSpec) -> Claim:
    """By the upper bound: few recurring rows pass because little can be given away, not because nothing was seen."""
    name, limit = "leakage.entity", spec.max_entity_leakage
    if found is None:
        return Claim(name, Verdict.ERROR, None, limit, 0, None, "entity leakage could not be determined")
    rows = found.recurring_rows
    message = (
        f"{rows} of {found.test_rows} test rows have a customer with training rows, whose labels give away "
        f"{found.share:.1%} of the test set, at most {found.share_high:.1%} with {found.confidence:.0%} confidence "
        f"(p = {found.p_value:.2g}); at most {limit:.0%} is allowed"
    )
    if found.share >= limit and found.p_value <= ALPHA:
        message += "; hold out customers as a whole, or allow more where they keep their habits in production too"
        return Claim(name, Verdict.FAIL, found.share_high, limit, rows, None, message)
    if found.share_high <= limit:
        return Claim(name, Verdict.PASS, found.share_high, limit, rows, None, message)
    room = limit - found.share
    needed = math.ceil(rows * ((found.share_high - found.share) / room) ** 2) if room > 0 else None
    message += f", about {needed} such rows are needed" if needed else ""
    return Claim(name, Verdict.INSUFFICIENT_DATA, found.share_high, limit, rows, needed, message)


def _columns(leakage: Leakage, spec: GateSpec) -> Claim:
    name, limit = "leakage.column", spec.max_column_effect
    if leakage.columns is None:
        return Claim(name, Verdict.ERROR, None, limit, 0, None, "target leakage of columns could not be determined")
    open_ones = [found for found in leakage.columns if not set(found.columns) <= set(leakage.known)]
    strongest = max((found.effect for found in open_ones), default=0.0)
    suspects = [found for found in open_ones if found.effect >= limit and found.p_value <= ALPHA]
    if not suspects:
        message = (
            f"none of {len(open_ones)} columns tells the label by itself: V is at most {strongest:.3f}, below {limit:g}"
            f"{_vouched(leakage)}"
        )
        return Claim(name, Verdict.PASS, strongest, limit, 0, None, message)
    message = (
        f"suspects, which tell the label by themselves (Cramér's V of {limit:g} or more): "
        f"{'; '.join(map(_described, suspects))}. Drop what is written after the event; "
        f"declare the others under features.known_at_event{_vouched(leakage)}"
    )
    return Claim(name, Verdict.FAIL, strongest, limit, 0, None, message)


def _described(found: ColumnLeak) -> str:
    return f"{found.name} V = {found.effect:.3f} ({found.telling})"


def _vouched(leakage: Leakage) -> str:
    return f"; declared as known at event time: {', '.join(leakage.known)}" if leakage.known else ""
