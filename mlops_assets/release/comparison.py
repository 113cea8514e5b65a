"""The challenger's claims on labelled rows: its F1, and its F1 beside the champion's on the same rows.

Bounds are those of `mlops_assets.f1`. It judges arrays of label numbers; which rows they are is the caller's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mlops_assets.f1 import Answered, Floats, Labels
from mlops_assets.release.claim import Claim
from mlops_assets.release.gate_inputs import Champion, ChampionUnavailable, FirstModel, GateInputs
from mlops_assets.release.sequential import trials_needed
from mlops_assets.spec import GateSpec
from mlops_assets.verdict import Verdict

_ALMOST_ONE = 0.999


@dataclass(frozen=True)
class Bounded:
    """An estimate with its lower confidence bound and what it would take to clear a limit."""

    estimate: float
    lower: float
    limit: float
    rows: int
    rows_needed: int | None

    @property
    def verdict(self) -> Verdict:
        """Pass above the limit; fail where the estimate itself does not clear it; else more rows are needed."""
        if self.lower > self.limit:
            return Verdict.PASS
        return Verdict.FAIL if self.rows_needed is None else Verdict.INSUFFICIENT_DATA


def confidence_after(uses: int, confidence: float) -> float:
    """Confidence of each bound on a test set that served `uses` decisions before: the error divided by all of them.

    It is that of this decision; over K decisions the errors add up to 1 + 1/2 + ... + 1/K times 1 - `confidence`.

    >>> round(confidence_after(0, 0.95), 4), round(confidence_after(4, 0.95), 4)
    (0.95, 0.99)
    """
    return 1.0 - (1.0 - confidence) / (1.0 + uses)


def decisions(uses: int) -> str:
    """So many decisions, in words for people."""
    return f"{uses} decision{'' if uses == 1 else 's'}"


def judge_f1(inputs: GateInputs, spec: GateSpec) -> Claim:
    """Claim: weighted F1 on the whole test set exceeds `min_f1`, by its lower bound.

    H0: weighted F1 <= min_f1, over customers like these. Error: about 1 - confidence at most (confirmed by simulation).
    """
    name, rows = "f1.lower_bound", inputs.truth.shape[0]
    if rows < spec.min_test_rows:
        message = f"{rows} test rows; at least {spec.min_test_rows} are needed"
        return Claim(name, Verdict.INSUFFICIENT_DATA, None, spec.min_f1, rows, spec.min_test_rows, message)
    confidence = confidence_after(inputs.earlier_uses, spec.confidence)
    answered = Answered.of(inputs.truth, [inputs.predicted], len(inputs.labels), inputs.customers)
    estimate = float(answered.f1().weighted[0])
    drawn = answered.with_customer_lost().resampled(inputs.seed).weighted[0]
    errors = int((inputs.truth != inputs.predicted).sum())
    bounded = _bound(estimate, drawn, spec.min_f1, (rows, errors), confidence)
    message = (
        f"weighted F1 {estimate:.4f} on {_rows(rows, inputs.customers)}, at least {bounded.lower:.4f} with "
        f"{confidence:.1%} confidence{_worn(inputs.earlier_uses, spec)}; must exceed {spec.min_f1:g}{_wanting(bounded)}"
    )
    return Claim(name, bounded.verdict, bounded.lower, spec.min_f1, rows, bounded.rows_needed, message)


def judge_champion(inputs: GateInputs, spec: GateSpec) -> tuple[Claim, ...]:
    """Claims: no loss against the champion beyond a margin, over all, on the newest window, and per label.

    H0 of each: challenger's F1 minus champion's <= -margin, on the same rows (paired bootstrap over customers). All
    have to be rejected, so no correction over them is due (intersection-union test). Error of each: about
    1 - confidence.
    """
    champion = inputs.champion
    if champion is None:
        return (_absent("the comparison with the champion is missing", inputs),)
    if isinstance(champion, ChampionUnavailable):
        return (_absent(f"the champion could not be asked: {champion.reason}", inputs),)
    if isinstance(champion, FirstModel):
        message = f"waived: first model, {champion.checked}"
        return (Claim("champion", Verdict.PASS, None, None, inputs.truth.shape[0], None, message),)
    everywhere = np.ones(inputs.truth.shape[0], bool)
    return (
        _compare("champion.overall", inputs, champion, everywhere, spec.champion_margin, spec),
        _newest(inputs, champion, spec),
        *_per_label(inputs, champion, spec),
    )


def _newest(inputs: GateInputs, champion: Champion, spec: GateSpec) -> Claim:
    if inputs.newest is None:
        message = "which rows are the newest window is not known"
        return Claim("champion.newest", Verdict.ERROR, None, -spec.newest_margin, 0, None, message)
    return _compare("champion.newest", inputs, champion, inputs.newest, spec.newest_margin, spec)


def _compare(
    name: str, inputs: GateInputs, champion: Champion, mask: np.ndarray, margin: float, spec: GateSpec
) -> Claim:
    truth, ours, theirs = inputs.truth[mask], inputs.predicted[mask], champion.predicted[mask]
    customers = None if inputs.customers is None else inputs.customers[mask]
    rows, labels = truth.shape[0], len(inputs.labels)
    confidence = confidence_after(inputs.earlier_uses, spec.confidence)
    if rows == 0:
        needed = trials_needed(0.0, margin, confidence)
        return Claim(name, Verdict.INSUFFICIENT_DATA, None, -margin, 0, needed, "no test row to compare on")
    answered = Answered.of(truth, [ours, theirs], labels, customers)
    both = answered.f1().weighted
    drawn = answered.with_customer_lost().resampled(inputs.seed).weighted
    losses = int(((ours != truth) & (theirs == truth)).sum())
    bounded = _bound(float(both[0] - both[1]), drawn[0] - drawn[1], -margin, (rows, losses), confidence)
    return _difference(name, bounded, float(both[0]), float(both[1]), champion, confidence)


def _per_label(inputs: GateInputs, champion: Champion, spec: GateSpec) -> list[Claim]:
    confidence = confidence_after(inputs.earlier_uses, spec.confidence)
    if inputs.truth.shape[0] == 0:
        return []
    pair = [inputs.predicted, champion.predicted]
    answered = Answered.of(inputs.truth, pair, len(inputs.labels), inputs.customers)
    scores = answered.f1().per_label
    lost = (inputs.predicted != inputs.truth) & (champion.predicted == inputs.truth)
    claims = []
    for number, label in enumerate(inputs.labels):
        name, mine = f"champion.label.{label}", inputs.truth == number
        if not mine.any():
            message, needed = f"no test row has the label {label}", trials_needed(0.0, spec.label_margin, confidence)
            claims.append(Claim(name, Verdict.INSUFFICIENT_DATA, None, -spec.label_margin, 0, needed, message))
            continue
        drawn = answered.with_customer_lost(number).resampled(inputs.seed).per_label[:, :, number]
        estimate = float(scores[0, number] - scores[1, number])
        seen = (int(mine.sum()), int(lost[mine].sum()))
        bounded = _bound(estimate, drawn[0] - drawn[1], -spec.label_margin, seen, confidence)
        ours, theirs = float(scores[0, number]), float(scores[1, number])
        claims.append(_difference(name, bounded, ours, theirs, champion, confidence))
    return claims


def _difference(
    name: str, bounded: Bounded, ours: float, theirs: float, champion: Champion, confidence: float
) -> Claim:
    message = (
        f"F1 {ours:.4f} against {theirs:.4f} of version {champion.version} on {bounded.rows} rows: difference "
        f"{bounded.estimate:+.4f}, at least {bounded.lower:+.4f} with {confidence:.1%} confidence; "
        f"must exceed {bounded.limit:+g}{_wanting(bounded)}"
    )
    return Claim(name, bounded.verdict, bounded.lower, bounded.limit, bounded.rows, bounded.rows_needed, message)


def _bound(estimate: float, drawn: Floats, limit: float, seen: tuple[int, int], confidence: float) -> Bounded:
    """The bound that `drawn` gives, and the rows that would clear the limit, judging by `seen` (rows, bad rows)."""
    rows, bad = seen
    lower = float(np.quantile(drawn, 1.0 - confidence))
    gap, room = min(estimate - lower, _ALMOST_ONE), min(estimate - limit, _ALMOST_ONE)
    if room <= 0:
        return Bounded(estimate, lower, limit, rows, None)
    # The gap shrinks with the root of the rows; while no row was bad it is the exact bound 1 - alpha^(1/rows).
    factor = (gap / room) ** 2 if bad else math.log1p(-gap) / math.log1p(-room)
    needed = max(math.ceil(rows * factor), 1)
    return Bounded(estimate, lower, limit, rows, needed if lower > limit else max(needed, rows + 1))


def _rows(rows: int, customers: Labels | None) -> str:
    of = "" if customers is None else f" of {np.unique(customers).size} customers"
    return f"{rows} rows{of}"


def _wanting(bounded: Bounded) -> str:
    if bounded.verdict is Verdict.INSUFFICIENT_DATA:
        return f", about {bounded.rows_needed} rows are needed"
    return ""


def _worn(uses: int, spec: GateSpec) -> str:
    if uses == 0:
        return ""
    return f" (instead of {spec.confidence:.0%}: {decisions(uses)} used this test set before)"


def _absent(message: str, inputs: GateInputs) -> Claim:
    return Claim("champion", Verdict.ERROR, None, None, inputs.truth.shape[0], None, message)
