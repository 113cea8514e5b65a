"""An A/B test as the guard keeps it: customers served by both arms, counted in two replicas as the ingress counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from mlops_assets.release.assignment import in_canary
from mlops_assets.serving.keeper import Keeper
from mlops_assets.serving.routing import CanaryRoute, Label, VersionRef
from mlops_assets.serving.tally import Arm, RolloutTally
from mlops_assets.spec import CanarySpec, ModelSpec

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STABLE, CANARY = VersionRef(1, "/stable", "a"), VersionRef(2, "/canary", "b")
SPEC = ModelSpec(name="m", canary=CanarySpec(weights=(0.5,), ab_hours=72))


class HeldSplit:
    """A split of one half that began at noon."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.keeper = Keeper(SPEC, folder, 1.0)
        self.keeper.follow(STABLE, CANARY, CANARY.version, NOON)
        self.keeper.canary_ready(CANARY, "birth", NOON)
        self.replicas = [RolloutTally() for _ in range(2)]
        self._sent = 0

    def route(self) -> CanaryRoute:
        route = self.keeper.route().canary
        assert route is not None
        return route

    def serve(self, customers: int, hours: float, each: int = 4) -> None:
        """`each` requests of so many customers, labelled: a fifth of the stable arm's answers are wrong, else none."""
        route = self.route()
        for replica in self.replicas:
            replica.follow(route)
        for number in range(customers * each):
            customer, replica = f"C-{number // each}", self.replicas[number % 2]
            arm: Arm = "canary" if in_canary(customer, route.salt, route.weight) else "stable"
            self._sent += 1
            replica.answered(route, arm, customer, f"p{self._sent}", "refund", 5.0)
            wrong = arm == "stable" and number % 5 == 0
            replica.judged(Label(f"p{self._sent}", "other" if wrong else "refund"))
        self.report(hours)

    def report(self, hours: float) -> None:
        """The replicas' counts reach the guard so long after noon."""
        for number, replica in enumerate(self.replicas):
            said = replica.report()
            assert said is not None
            self.keeper.absorb(f"replica {number}", said, NOON + timedelta(hours=hours))

    def restart(self) -> None:
        """The guard's process dies and comes back."""
        self.keeper = Keeper(SPEC, self._folder, 1.0)
