"""What the gate is given, and what it answers: plain records, no judgement.

What is absent is said to be absent, in a type of its own, so that a figure that went missing is never taken
for one that is fine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlops_assets.leaks import Leakage
from mlops_assets.release.claim import Claim
from mlops_assets.verdict import Verdict


class MismatchedInputs(ValueError):
    """The gate's arrays do not belong together; the message names the two and their shapes."""


@dataclass(frozen=True)
class FirstModel:
    """There is no production version to compare with; recorded as a waiver of the comparison."""

    checked: str = "the registry holds no production version"


@dataclass(frozen=True)
class ChampionUnavailable:
    """There is a production version, and it could not be asked: the comparison ends in an error."""

    reason: str


@dataclass(frozen=True)
class Champion:
    """The production version's answers on the same test rows: label numbers, shape (n,).

    `artefact_digest` and `trained_until` (ISO time) say for the evidence which model that is, and from when on rows
    are new to it.
    """

    version: str
    predicted: NDArray[np.int64]
    artefact_digest: str = ""
    trained_until: str = ""


@dataclass(frozen=True)
class Waiver:
    """An operator lets a version past the gate; recorded beside the verdict, which it does not change."""

    reason: str
    by: str

    @classmethod
    def of(cls, reason: str, by: str) -> Waiver | None:
        """The waiver that was given, if any.

        Raises:
            IncompleteWaiver: one of the two is empty.
        """
        if bool(reason) != bool(by):
            raise IncompleteWaiver
        return cls(reason, by) if reason else None


class IncompleteWaiver(ValueError):
    """A waiver without its reason or its author."""

    def __init__(self) -> None:
        super().__init__("a waiver needs both its reason (--waive) and who takes it (--by)")


@dataclass(frozen=True)
class GateInputs:
    """Everything that a gate decision rests on; None means that the figure is missing, which fails closed.

    Parameters
    ----------
    labels : names of the label numbers.
    truth, predicted : the test rows' true labels and the challenger's answers, label numbers, shape (n,).
    champion : the production version's answers on the same rows, or why there are none.
    newest : which rows belong to the newest window, booleans of shape (n,).
    probabilities : the challenger's, shape (n, labels).
    latencies_ms : of single messages through the exported predictor.
    leakage : what the search for leakage found.
    customers : whose each row is, as `mlops_assets.f1.customer_numbers`, shape (n,); None: rows are independent.
    earlier_uses : earlier decisions that used this test set; each widens the bounds.
    """

    labels: tuple[str, ...]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    champion: Champion | FirstModel | ChampionUnavailable | None = None
    newest: NDArray[np.bool_] | None = None
    probabilities: NDArray[np.floating[Any]] | None = None
    latencies_ms: NDArray[np.floating[Any]] | None = None
    leakage: Leakage | None = None
    customers: NDArray[np.int64] | None = None
    earlier_uses: int = 0
    seed: int = 0
    waiver: Waiver | None = None

    def __post_init__(self) -> None:
        rows = self.truth.shape[0]
        paired: dict[str, Any] = {"predicted": self.predicted, "newest": self.newest}
        paired |= {"customers": self.customers, "probabilities": self.probabilities}
        if isinstance(self.champion, Champion):
            paired["champion.predicted"] = self.champion.predicted
        for name, values in paired.items():
            if values is not None and values.shape[0] != rows:
                raise MismatchedInputs(f"{name} has {values.shape[0]} rows, truth has {rows}: pass the same test rows")
        for name in ("truth", "predicted", "champion.predicted"):
            values = self.truth if name == "truth" else paired.get(name)
            if values is not None and rows and not (values.min() >= 0 and values.max() < len(self.labels)):
                raise MismatchedInputs(f"{name} holds label numbers outside 0..{len(self.labels) - 1}")
        if self.probabilities is not None and self.probabilities.shape[1:] != (len(self.labels),):
            raise MismatchedInputs(f"probabilities have shape {self.probabilities.shape}, labels are {self.labels}")


@dataclass(frozen=True)
class GateDecision:
    """The gate's answer with its evidence.

    Parameters
    ----------
    verdict : the least favourable of the claims' verdicts.
    waiver : an operator's, if any; it releases a version without changing the verdict.
    """

    verdict: Verdict
    claims: tuple[Claim, ...]
    waiver: Waiver | None = None

    @property
    def released(self) -> bool:
        """Whether the version may become a canary: the gate passed, or an operator waived it."""
        return self.verdict.ok or self.waiver is not None

    @property
    def summary(self) -> str:
        """One sentence for people: the verdict, and what stands in the way."""
        blocking = [claim for claim in self.claims if not claim.verdict.ok]
        if not blocking:
            return f"passed all {len(self.claims)} claims"
        waived = f" (waived by {self.waiver.by}: {self.waiver.reason})" if self.waiver else ""
        return f"{self.verdict.value}{waived}: " + "; ".join(f"{claim.name}: {claim.message}" for claim in blocking)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, for the evidence document."""
        claims = [{**asdict(claim), "verdict": claim.verdict.value} for claim in self.claims]
        return {
            "verdict": self.verdict.value,
            "released": self.released,
            "summary": self.summary,
            "waiver": asdict(self.waiver) if self.waiver else None,
            "claims": claims,
        }
