"""What has been counted of the two arms of a rollout: the only data that its decisions rest on.

Counts add up, so they can be gathered in any number of processes and in any pieces. They know neither
time nor policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest


class InvalidCounts(ValueError):
    """Counts that cannot be true, such as more failures than requests; they are not added to the state."""


@dataclass(frozen=True)
class ArmCounts:
    """One arm's totals.

    Parameters
    ----------
    requests : requests sent to this arm.
    failures : of these, answered with an error by this arm.
    slow : of these, answered later than the policy's latency limit.
    judged : answers whose true label is known by now.
    wrong : of the judged, those with another label.
    entities : distinct customers (a request without one counts as one) that this arm saw first at this step;
        0: not counted.

    Examples
    --------
    >>> (ArmCounts(requests=10, failures=1) + ArmCounts(requests=5)).requests
    15
    """

    requests: int = 0
    failures: int = 0
    slow: int = 0
    judged: int = 0
    wrong: int = 0
    entities: int = 0

    def __post_init__(self) -> None:
        least = min(self.requests, self.failures, self.slow, self.judged, self.wrong, self.entities)
        if least < 0 or max(self.failures, self.slow) > self.requests or self.wrong > self.judged:
            raise InvalidCounts(
                f"{self}: none can be negative, nor failures or slow more than requests, nor wrong more than judged; "
                "count each answer once"
            )

    def __add__(self, other: ArmCounts) -> ArmCounts:
        return ArmCounts(
            self.requests + other.requests,
            self.failures + other.failures,
            self.slow + other.slow,
            self.judged + other.judged,
            self.wrong + other.wrong,
            self.entities + other.entities,
        )


@dataclass(frozen=True)
class Counts:
    """Both arms' totals over the same time, and what became of the copies that a shadow step sends.

    Parameters
    ----------
    compared : copies that both versions answered.
    agreed : of these, answered with the same label.
    dropped : copies that were not sent, because too many were on their way.
    groups : the same by group of customers, in an A/B test; else none.
    times_counted : how often one customer can be among the `entities`, at most: each replica of the endpoint counts
        those that it meets, and does not know whom the others have met. 0: nobody but the one who counts.

    Examples
    --------
    >>> (Counts() + Counts(canary=ArmCounts(requests=3))).canary.requests
    3
    """

    stable: ArmCounts = field(default_factory=ArmCounts)
    canary: ArmCounts = field(default_factory=ArmCounts)
    compared: int = 0
    agreed: int = 0
    dropped: int = 0
    groups: tuple[Counts, ...] = ()
    times_counted: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.agreed <= self.compared or min(self.dropped, self.times_counted) < 0:
            raise InvalidCounts(
                f"{self.agreed} agreed of {self.compared} compared, {self.dropped} dropped, "
                f"counted {self.times_counted} times"
            )

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.stable + other.stable,
            self.canary + other.canary,
            self.compared + other.compared,
            self.agreed + other.agreed,
            self.dropped + other.dropped,
            _added(self.groups, other.groups) if self.groups or other.groups else (),
            self.times_counted + other.times_counted,
        )


def _added(groups: tuple[Counts, ...], others: tuple[Counts, ...]) -> tuple[Counts, ...]:
    return tuple(mine + more for mine, more in zip_longest(groups, others, fillvalue=Counts()))
