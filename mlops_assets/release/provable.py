"""What a test set can prove at all: said before a model is trained, not after its claim failed for want of rows.

Judges a flawless candidate beside an equal champion on the rows there are. A claim that even this one cannot pass
needs more rows, whatever the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlops_assets.release.claim import Claim
from mlops_assets.release.comparison import confidence_after, decisions, judge_champion, judge_f1
from mlops_assets.release.gate_inputs import Champion, FirstModel, GateInputs
from mlops_assets.release.sequential import passes_below
from mlops_assets.spec import GateSpec


@dataclass(frozen=True)
class Provable:
    """What the gate could prove on a test set.

    Parameters
    ----------
    rows : test rows.
    wanting : claims that have too few rows, each with the rows it needs.
    errors_allowed : most wrong answers with which accuracy is proved above `min_f1`; weighted F1 comes close to it.
    """

    rows: int
    wanting: tuple[Claim, ...]
    errors_allowed: int
    earlier_uses: int

    @property
    def message(self) -> str:
        """One sentence for people."""
        used = f", which served {decisions(self.earlier_uses)} before," if self.earlier_uses else ""
        if self.wanting:
            lacking = "; ".join(f"{c.name} has {c.rows} and needs {c.rows_needed}" for c in self.wanting)
            return f"the {self.rows} test rows{used} cannot prove what the gate demands, whatever the model: {lacking}"
        return f"the {self.rows} test rows{used} suffice for a model with about {self.errors_allowed} errors or fewer"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        wanting = [
            {"claim": claim.name, "rows": claim.rows, "rows_needed": claim.rows_needed} for claim in self.wanting
        ]
        return {"rows": self.rows, "wanting": wanting, "errors_allowed": self.errors_allowed}


def provable(
    truth: NDArray[np.int64],
    labels: Sequence[str],
    spec: GateSpec,
    *,
    newest: NDArray[np.bool_] | None = None,
    customers: NDArray[np.int64] | None = None,
    earlier_uses: int = 0,
) -> Provable:
    """What the gate could prove on test rows with these true labels.

    Parameters
    ----------
    truth : label numbers, shape (n,).
    newest : which rows are newer than the champion; None: there is no champion to compare with.
    customers : as in `GateInputs`.
    earlier_uses : decisions that the test set served before.

    Examples
    --------
    >>> provable(np.arange(100) % 2, ("a", "b"), GateSpec()).message
    'the 100 test rows cannot prove what the gate demands, whatever the model: f1.lower_bound has 100 and needs 300'
    >>> provable(np.arange(400) % 2, ("a", "b"), GateSpec()).message
    'the 400 test rows suffice for a model with about 22 errors or fewer'
    """
    champion = FirstModel() if newest is None else Champion("in production", truth)
    inputs = GateInputs(tuple(labels), truth, truth, champion, newest, customers=customers, earlier_uses=earlier_uses)
    claims = (judge_f1(inputs, spec), *judge_champion(inputs, spec))
    wanting = tuple(claim for claim in claims if not claim.verdict.ok)
    return Provable(len(truth), wanting, _errors_allowed(len(truth), spec, earlier_uses), earlier_uses)


def _errors_allowed(rows: int, spec: GateSpec, earlier_uses: int) -> int:
    confidence, limit, errors = confidence_after(earlier_uses, spec.confidence), 1.0 - spec.min_f1, 0
    while rows and passes_below(errors + 1, rows, limit, confidence):
        errors += 1
    return errors
