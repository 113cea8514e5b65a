"""The guard: follows the registry, keeps one rollout per model, and tells the ingress replicas whom to ask.

It may stop a canary alone and at once: first its weight is zero, durably; then the registry is told,
step by step, each step repeated until it holds. It never promotes: it only seals when it is asked.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from mlops_assets.release.rollout import SEAL_GRANTED, Approval, Phase
from mlops_assets.resources.registry import AliasConflict, Registry, RegistryUnavailable, UnknownVersion, Version
from mlops_assets.serving.canary_host import Held
from mlops_assets.serving.exposition import Heard, exposition
from mlops_assets.serving.keeper import Keeper, Outcome, StateNotWritten
from mlops_assets.serving.metrics import Figures
from mlops_assets.serving.routing import RegistryState, Route, RoutingTable, Tally, VersionRef
from mlops_assets.serving.schemas import RolloutAnswer
from mlops_assets.serving.stray_labels import StrayLabels
from mlops_assets.serving.trouble import Trouble
from mlops_assets.settings import Settings
from mlops_assets.spec import ModelSpec

log = logging.getLogger("mlops_assets.serving")

EVIDENCE = "rollout"
# Under a name of its own: the alias moves on the evidence of the seal alone.
REPORT = "rollout_report"
TRAFFIC_TAG = "requests_per_second"
FINISHED = frozenset({Phase.SUCCEEDED.value, Phase.FAILED.value, Phase.INCONCLUSIVE.value})
# A registry that has not answered for so long counts as unreachable, even if the call still hangs.
_SILENT_SECONDS = 10.0
# A replica that has said nothing for so long has gone, and its counts with it.
_GONE_SECONDS = 300.0


@dataclass(frozen=True)
class Rejected:
    """An admin call that cannot be carried out: HTTP status and reason (an exception loses its type on the way)."""

    status: int
    reason: str


class Guard:
    """All models' rollouts. Safe to call from several threads; only `follow_registry` waits for the registry."""

    def __init__(self, settings: Settings, specs: list[ModelSpec]) -> None:
        self._registry = Registry(settings)
        self._keepers = {
            spec.name: Keeper(spec, settings.model_home(spec.name).rollout, settings.canary_time_scale)
            for spec in specs
        }
        self._strays = {spec.name: StrayLabels() for spec in specs}
        self._figures: dict[str, tuple[float, Mapping[str, Figures]]] = {}
        self._following = threading.Lock()
        self._answered_at: float | None = None
        self._registry_state = RegistryState(reachable=False, error="not asked yet")
        self._trouble = Trouble("the registry cannot be followed")

    def exchange(self, replica: str, tallies: Mapping[str, Tally], figures: Mapping[str, Figures]) -> RoutingTable:
        """Take a replica's counts, judge, and answer with the table that holds from now on.

        Args:
            replica: who counted.
            tallies: by model, what it saw of the rollout.
            figures: by model, what it counted for Prometheus.
        """
        self._figures[replica] = time.monotonic(), figures
        now = datetime.now(UTC)
        known = {model: tally for model, tally in tallies.items() if model in self._keepers}
        for model, keeper in self._keepers.items():
            with suppress(StateNotWritten):  # told by the keeper; what was counted comes again, as a sum so far
                keeper.write_again()
                if model in known:
                    keeper.absorb(replica, known[model], now)
        labels = {model: self._strays[model].exchange(tally.strays, tally.heard) for model, tally in known.items()}
        routes = {model: keeper.route() for model, keeper in self._keepers.items()}
        unwritten = {model: why for model, keeper in self._keepers.items() if (why := keeper.unwritten)}
        return RoutingTable(routes, self._registry_now(), labels, unwritten)

    def follow_registry(self) -> None:
        """One look at the registry: follow the aliases, and tell it what has been decided. Blocks.

        An unreachable registry changes nothing: what is loaded serves on, and the table says so.
        """
        with self._following:
            errors = [error for model, keeper in self._keepers.items() if (error := self._follow(model, keeper))]
            if errors:
                self._trouble.met(errors[0])
                self._registry_state = RegistryState(False, self._registry_state.checked_at, self._trouble.why)
                return
            self._trouble.over()
            self._answered_at = time.monotonic()
            self._registry_state = RegistryState(True, datetime.now(UTC).isoformat())

    def wanted(self) -> dict[str, VersionRef]:
        """The versions that the canary process has to hold."""
        found = {model: keeper.canary_ref() for model, keeper in self._keepers.items()}
        return {model: ref for model, ref in found.items() if ref is not None}

    def canary_holds(self, wanted: Mapping[str, VersionRef], held: Held) -> None:
        """The canary process answered: it holds `wanted`, except for what failed to load."""
        now = datetime.now(UTC)
        for model, ref in wanted.items():
            with suppress(StateNotWritten):  # told by the keeper; the canary says the same at the next beat
                if model in held.failed:
                    self._keepers[model].canary_unusable(ref, held.failed[model], now)
                else:
                    self._keepers[model].canary_ready(ref, held.birth, now)

    def canary_absent(self) -> None:
        """The canary process could not be reached."""
        now = datetime.now(UTC)
        for keeper in self._keepers.values():
            with suppress(StateNotWritten):  # told by the keeper; the next beat finds the same
                keeper.canary_missing(now)

    def rollout(self, model: str) -> dict[str, Any]:
        """What is known of the newest rollout of a model."""
        return self._keepers[model].describe(datetime.now(UTC))

    def metrics(self) -> str:
        """All replicas' counts and all rollouts, as Prometheus reads them."""
        now = time.monotonic()
        heard = {name: Heard(figures, now - at) for name, (at, figures) in list(self._figures.items())}
        self._figures = {name: kept for name, kept in self._figures.items() if now - kept[0] <= _GONE_SECONDS}
        rollouts = {model: self.rollout(model) for model in self._keepers}
        return exposition(heard, rollouts, registry_ok=self._registry_now().reachable)

    def seal(self, model: str, version: int, approval: Approval | None) -> RolloutAnswer | Rejected:
        """First half of a promotion: no abort after this. The evidence is attached before it answers "sealed"."""
        keeper = self._keepers[model]
        try:
            answer = keeper.seal(version, approval, datetime.now(UTC))
        except StateNotWritten as error:
            return Rejected(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}; ask again then")
        if answer is None:
            return Rejected(HTTPStatus.CONFLICT, f"there is no rollout of version {version}")
        if answer == SEAL_GRANTED:
            try:
                self._registry.attach_evidence(model, version, EVIDENCE, keeper.evidence())
            except (RegistryUnavailable, UnknownVersion) as error:
                waits = f"sealed, but its evidence waits for the registry; ask again: {error}"
                return Rejected(HTTPStatus.SERVICE_UNAVAILABLE, waits)
        return RolloutAnswer(answer=answer, phase=keeper.phase())

    def abort(self, model: str, version: int, reason: str) -> RolloutAnswer | Rejected:
        """Stop a rollout by hand; the registry is told right after."""
        keeper = self._keepers[model]
        try:
            rejected = keeper.abort(version, reason, datetime.now(UTC))
        except StateNotWritten as error:
            return Rejected(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}; ask again then")
        if rejected is not None:
            return Rejected(HTTPStatus.CONFLICT, rejected)
        return RolloutAnswer(answer=f"aborted: {reason}", phase=keeper.phase())

    def _follow(self, model: str, keeper: Keeper) -> Exception | None:
        """Follow one model; returns what went wrong, so that one model's trouble is not the others'."""
        try:
            self._follow_aliases(model, keeper)
        except StateNotWritten:  # told by the keeper, and no fault of the registry's; the next look finds the same
            return None
        except RegistryUnavailable as error:
            return error
        except Exception as error:  # the guard must outlive whatever the registry comes up with
            log.exception("%s: cannot follow the registry", model)
            return error
        return None

    def _follow_aliases(self, model: str, keeper: Keeper) -> None:
        # In this order: a promotion moves production before it drops the alias canary, so that one which happens
        # between the two looks is seen as that, and not as a canary that somebody took back.
        canary = self._registry.by_alias(model, "canary")
        stable = self._registry.by_alias(model, "production")
        fresh = canary if canary is not None and may_start(canary) else None
        held = canary.version if canary is not None else None
        started = keeper.follow(
            _ref(stable) if stable else None,
            _ref(fresh) if fresh else None,
            held,
            datetime.now(UTC),
            _expected_traffic(fresh),
        )
        if started is not None:
            self._registry.set_tags(model, started, {EVIDENCE: "progressing"})
        waiting = keeper.awaiting()
        if waiting is not None:
            self._registry.attach_evidence(model, waiting.version, REPORT, waiting.evidence)
            keeper.submitted(waiting)
        outcome = keeper.outcome()
        if outcome is not None:
            self._close(model, outcome)
            keeper.closed(outcome)
        elif canary is not None and fresh is None and keeper.is_idle:
            self._take_back(model, canary.version)

    def _close(self, model: str, outcome: Outcome) -> None:
        """Tell the registry how a rollout ended. Every step may be repeated."""
        version = outcome.version
        if outcome.phase is not Phase.SUCCEEDED:
            self._registry.attach_evidence(model, version, EVIDENCE, outcome.evidence)
        archived = {} if outcome.phase is Phase.SUCCEEDED else {"archived": "true"}
        self._registry.set_tags(model, version, {EVIDENCE: outcome.phase.value.lower(), **archived})
        self._take_back(model, version)

    def _take_back(self, model: str, version: int) -> None:
        """Take the alias canary from a version whose rollout is over: it is in the way of every other one."""
        try:
            self._registry.drop_alias(model, "canary", expected=version)
        except AliasConflict:
            log.info("%s: the alias canary has moved on from version %s already", model, version)

    def _registry_now(self) -> RegistryState:
        state = self._registry_state
        if state.reachable and self._answered_at is not None:
            silent = time.monotonic() - self._answered_at
            if silent > _SILENT_SECONDS:
                return RegistryState(False, state.checked_at, f"has not answered for {silent:.0f} s")
        return state


def may_start(version: Version) -> bool:
    """Whether a version with the alias canary may be tried: never twice, and never out of the archive."""
    return version.tags.get(EVIDENCE) not in FINISHED and version.tags.get("archived") != "true"


def route_from_registry(registry: Registry, model: str) -> Route:
    """The production version and no canary: what a replica serves while it cannot reach the guard.

    Raises:
        RegistryUnavailable: the registry cannot be reached either.
    """
    production = registry.by_alias(model, "production")
    return Route(stable=_ref(production) if production else None)


def _expected_traffic(version: Version | None) -> float | None:
    """Requests per second, as counted when the canary was asked for; None where nobody counted."""
    said = version.tags.get(TRAFFIC_TAG) if version else None
    return float(said) if said else None


def _ref(version: Version) -> VersionRef:
    return VersionRef(version.version, str(version.artefact), version.artefact_digest, version.artefact_format)
