"""The routing table: which version answers whom. The guard makes it, the ingress replicas follow it.

Plain frozen values that travel between processes; a weight of zero and no canary are the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mlops_assets.release.rollout import Counts
from mlops_assets.resources.packaging import ArtefactFormat


@dataclass(frozen=True)
class VersionRef:
    """A registered version and where its files are.

    Attributes:
        version: number in the registry.
        artefact: folder of its files.
        digest: of these at registration; a folder that differs is refused.
        form: what the files are; a state that was kept before there was a choice means an export.
    """

    version: int
    artefact: str
    digest: str
    form: ArtefactFormat = "export"


@dataclass(frozen=True)
class CanaryRoute:
    """The canary arm of one rollout.

    Attributes:
        step: number of the rollout's step, from 0.
        weight: share of customers at that step, 0..1.
        shadow: the canary gets copies of these customers' requests, and the stable version answers them.
        beat: grows each time the canary's process was seen with the version loaded.
        slow_ms: an answer that took longer counts as slow, by the policy that the rollout began with.
        grouped: an A/B test: what is counted is counted by group of customers, too.
    """

    ref: VersionRef
    rollout_id: str
    step: int
    salt: str
    weight: float
    shadow: bool
    beat: int
    slow_ms: float
    grouped: bool = False


@dataclass(frozen=True)
class Route:
    """Who answers for one model. `stable` is None while the registry has no production version."""

    stable: VersionRef | None = None
    canary: CanaryRoute | None = None


@dataclass(frozen=True)
class RegistryState:
    """How the registry was found when it was last asked."""

    reachable: bool
    checked_at: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Label:
    """The true label of a prediction."""

    prediction_id: str
    label: str


@dataclass(frozen=True)
class Labels:
    """Labels for whichever replica knows their predictions; `number` is that of the last one."""

    number: int = 0
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True)
class RoutingTable:
    """All routes by model, the labels that strayed, the registry's state, and why a rollout's cannot be written."""

    routes: dict[str, Route] = field(default_factory=dict)
    registry: RegistryState = RegistryState(reachable=False)
    labels: dict[str, Labels] = field(default_factory=dict)
    unwritten: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Tally:
    """What one ingress replica has seen of a rollout since that rollout began, step by step (cumulative).

    Cumulative, so that an exchange that is lost or repeated neither loses nor doubles a count.

    Attributes:
        strays: labels of predictions that this replica does not know, since the last exchange that succeeded.
        heard: number of the last stray label that it has heard of.
    """

    rollout_id: str
    steps: tuple[Counts, ...]
    strays: tuple[Label, ...] = ()
    heard: int = 0


@dataclass(frozen=True)
class Answer:
    """The canary's answer: probabilities in the order of the version's labels, and how long the version took."""

    probabilities: tuple[float, ...]
    labels: tuple[str, ...]
    milliseconds: float


@dataclass(frozen=True)
class Refusal:
    """The canary was asked and could not answer this message, or not in time."""

    reason: str


@dataclass(frozen=True)
class Absent:
    """The canary's process, or the version in it, is not there at the moment.

    No failure of the version: a process that keeps dying, or stays away, ends the rollout by rules of its own.
    """

    reason: str
