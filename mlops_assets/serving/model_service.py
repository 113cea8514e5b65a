"""One model's requests: split, features, the two arms or a copy, the log, the counts. The heart of the ingress.

It knows the routing table that it was last given and answers by it; how the table comes about (guard,
registry) and how requests come in (HTTP) is left to others.
"""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from http import HTTPStatus
from typing import Any

from mlops_assets import clock
from mlops_assets.release.assignment import in_canary
from mlops_assets.serving import arm_override
from mlops_assets.serving.append_log import AppendLog, LogUnavailable
from mlops_assets.serving.arms import LoadedVersion, StableArm, checked
from mlops_assets.serving.batcher import Overloaded
from mlops_assets.serving.canary_call import AskCanary, CanaryCall
from mlops_assets.serving.limits import without_data
from mlops_assets.serving.lookup import FeatureLookup, Looked
from mlops_assets.serving.metrics import Figures, Meter
from mlops_assets.serving.problems import Problem
from mlops_assets.serving.routing import Absent, Answer, CanaryRoute, Label, Refusal, Route
from mlops_assets.serving.schemas import FeedbackReply, FeedbackRequest, PredictReply, PredictRequest
from mlops_assets.serving.shadow import Copy, Shadow
from mlops_assets.serving.tally import Arm, RolloutTally
from mlops_assets.serving.tracing import trace_id
from mlops_assets.settings import Settings
from mlops_assets.spec import ModelSpec

log = logging.getLogger("mlops_assets.serving")


@dataclass(frozen=True)
class _Override:
    """A tester named the arm: this canary, or the stable version where it is None."""

    canary: CanaryRoute | None


@dataclass(frozen=True)
class _Asked:
    """One request on its way: what is known before any arm is asked. `route`: whose canary splits it, if any."""

    prediction_id: str
    request: PredictRequest
    event_timestamp: datetime
    received_at: datetime
    started: float
    features: Looked
    route: CanaryRoute | None
    override: _Override | None = None

    @cached_property
    def for_canary(self) -> CanaryRoute | None:
        """The canary, if this is a request of one of its customers."""
        route = self.route
        return route if route is not None and in_canary(self.entity, route.salt, route.weight) else None

    @property
    def entity(self) -> str:
        """Whom the split is by."""
        return self.request.customer_id or self.prediction_id

    @property
    def latency_ms(self) -> float:
        return (time.perf_counter() - self.started) * 1000


@dataclass(frozen=True)
class _Answered:
    """What an arm said, and how long its version took. `error` tells of a canary that failed before.

    `counted` is the arm that the request counts for in the rollout, if any; where it is not `arm`, it failed.
    The way to the canary's process is not timed: it ends with the rollout, and the version is what is judged.
    """

    arm: Arm
    version: int
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    milliseconds: float
    counted: Arm | None = None
    error: str | None = None

    @property
    def best(self) -> int:
        return self.probabilities.index(max(self.probabilities))


class ModelService:
    """Predictions and feedback of one model in one ingress replica.

    Attributes:
        log_error: why the last record could not be written; None: it was.
        unlogged: predictions that were answered and are not in the log, because the model's log is best effort.
    """

    def __init__(
        self, spec: ModelSpec, settings: Settings, writer: str, lookup: FeatureLookup, ask_canary: AskCanary
    ) -> None:
        folders = settings.model_home(spec.name)
        self.spec = spec
        self.stable = StableArm(spec)
        self.lookup = lookup
        self.tally = RolloutTally()
        self.meter = Meter()
        self._settings = settings
        self._call_canary = CanaryCall(spec.name, ask_canary, spec.serving.deadline_ms / 1000)
        self._route = Route()
        self._predictions = AppendLog(folders.predictions, writer)
        self._feedback = AppendLog(folders.feedback, writer)
        self._shadowed = AppendLog(folders.shadow, writer)
        self.shadow = Shadow(self._call_canary, self.tally, self.meter, partial(self._append, self._shadowed))
        self.log_error: str | None = None
        self.unlogged = 0
        self._labels = frozenset(spec.data.labels)

    @property
    def route(self) -> Route:
        """The route that requests follow now."""
        return self._route

    def follow(self, route: Route) -> None:
        """Take a new route; loading the stable version it names is `stable.follow`'s, in a thread."""
        self.tally.follow(route.canary)
        self._route = route

    async def predict(self, request: PredictRequest) -> PredictReply:
        """Answer one message; its record is on disk when this returns.

        One whose tester named the arm (`arm_override`) goes there and nowhere else, and counts for nothing.

        Raises:
            Problem: the request cannot be served; the problem says why.
        """
        arm = arm_override.chosen_arm()
        if arm is None:
            return await self._serve(request, self._route.canary)
        return await self._serve(request, None, _Override(self._on_trial() if arm == "canary" else None))

    async def predict_by_stable(self, request: PredictRequest) -> PredictReply:
        """As `predict`, but outside of any rollout: the stable version answers, and no rollout counts it."""
        return await self._serve(request, None)

    def check_text(self, text: str) -> None:
        """Refuse a message that is longer than the model takes.

        Raises:
            Problem: 422, it is.
        """
        limit = self.spec.data.max_text_length
        if len(text) > limit:
            raise _field_problem("text", f"has {len(text)} characters; {self.spec.name} takes at most {limit}")

    async def _serve(
        self, request: PredictRequest, route: CanaryRoute | None, override: _Override | None = None
    ) -> PredictReply:
        started, received_at = time.perf_counter(), datetime.now(UTC)
        self.check_text(request.text)
        event_timestamp = self._event_time(request.event_timestamp, "event_timestamp", received_at)
        if request.repeat and not self._settings.replay_clock:
            raise _replay_only("repeat")
        self._check_admitted()
        asked = _Asked(
            prediction_id=uuid.uuid4().hex,
            request=request,
            event_timestamp=event_timestamp,
            received_at=received_at,
            started=started,
            features=await self.lookup(request.customer_id, event_timestamp),
            route=route,
            override=override,
        )
        self.meter.looked_up(asked.features.outcome)
        answered = await self._answer(asked)
        reply = self._reply(asked, answered)
        if route is not None and route.shadow and asked.for_canary is not None:
            self.shadow.send(_copy(asked, route, reply.label))
        return reply

    def feedback(self, request: FeedbackRequest) -> FeedbackReply:
        """Keep the true label of a prediction; it is on disk when this returns.

        Raises:
            Problem: the label is none of the model's, or it cannot be written.
        """
        if request.label not in self._labels:
            detail = f"{request.label!r} is no label of {self.spec.name}; allowed: {', '.join(self.spec.data.labels)}"
            raise _field_problem("label", detail)
        received_at = datetime.now(UTC)
        record = {
            "prediction_id": request.prediction_id,
            "label": request.label,
            "label_timestamp": self._event_time(request.label_timestamp, "label_timestamp", received_at),
            "received_at": received_at,
        }
        if not self._append(self._feedback, record):
            raise self._not_logged()
        self.tally.judged(Label(request.prediction_id, request.label))
        return FeedbackReply(prediction_id=request.prediction_id)

    def figures(self) -> Figures:
        """What was counted for Prometheus so far."""
        version, refused = self.stable.current, self.stable.refused
        batcher = version.batcher if version is not None else None
        figures = (
            self.meter.figures(batcher.waiting, batcher.batches, batcher.batched) if batcher else self.meter.figures()
        )
        return replace(figures, refused=refused.version if refused else 0)

    def close(self) -> None:
        """Close the logs."""
        for log_file in (self._predictions, self._feedback, self._shadowed):
            log_file.close()

    async def _answer(self, asked: _Asked) -> _Answered:
        if asked.override is not None and asked.override.canary is not None:
            return await self._by_canary_alone(asked, asked.override.canary)
        canary = asked.for_canary
        if canary is None:
            return await self._by_stable(asked, counted=asked.route)
        # Below, the stable arm's answer is not counted: these customers are not its own.
        if canary.shadow:
            return await self._by_stable(asked, counted=None)
        said = await self._by_canary(asked, canary)
        if isinstance(said, _Answered):
            return said
        failed: Arm | None = "canary" if isinstance(said, Refusal) else None
        instead = await self._by_stable(asked, counted=None)
        return replace(instead, counted=failed, error=f"canary version {canary.ref.version}: {said.reason}")

    async def _by_canary(self, asked: _Asked, canary: CanaryRoute) -> _Answered | Refusal | Absent:
        said = await self._call_canary(canary, asked.request.text, asked.features.values)
        if isinstance(said, Answer):
            answered = replace(_answered_by(canary, said), counted="canary")
            self._count(asked, canary, answered)
            return answered
        if isinstance(said, Refusal):
            self.tally.failed(canary, "canary", asked.entity)
            self.meter.missed("canary", canary.ref.version, "failed")
        return said

    async def _by_canary_alone(self, asked: _Asked, canary: CanaryRoute) -> _Answered:
        """For a tester, whom another arm's answer would only mislead; counted nowhere."""
        said = await self._call_canary(canary, asked.request.text, asked.features.values)
        if isinstance(said, Answer):
            return _answered_by(canary, said)
        status = HTTPStatus.INTERNAL_SERVER_ERROR if isinstance(said, Refusal) else HTTPStatus.SERVICE_UNAVAILABLE
        raise Problem(status, f"canary version {canary.ref.version} could not answer this message: {said.reason}")

    async def _by_stable(self, asked: _Asked, *, counted: CanaryRoute | None) -> _Answered:
        version = self.stable.current
        if version is None:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, self._why_not_ready(), headers={"Retry-After": "2"})
        started = time.perf_counter()
        try:
            probabilities = checked(
                await version.batcher.submit(asked.request.text, version.vector(asked.features.values))
            )
        except Overloaded as overloaded:
            self.meter.missed("stable", version.ref.version, "overloaded")
            raise _overload(str(overloaded)) from overloaded
        except Exception as failure:
            self.meter.missed("stable", version.ref.version, "failed")
            if counted is not None:
                self.tally.failed(counted, "stable", asked.entity)
            log.error(
                "version %s could not answer %s: %s", version.ref.version, asked.prediction_id, without_data(failure)
            )
            counted_for: Arm | None = "stable" if counted is not None else None
            self._log_prediction(self._failed_record(asked, version, failure) | {"counted": counted_for})
            raise Problem(
                HTTPStatus.INTERNAL_SERVER_ERROR, f"version {version.ref.version} could not answer this message"
            ) from failure
        took = 1000 * (time.perf_counter() - started)
        answered = _Answered("stable", version.ref.version, version.predictor.labels, _floats(probabilities), took)
        if counted is None:
            return answered
        self._count(asked, counted, answered)
        return replace(answered, counted="stable")

    def _count(self, asked: _Asked, route: CanaryRoute, answered: _Answered) -> None:
        label = answered.labels[answered.best]
        self.tally.answered(route, answered.arm, asked.entity, asked.prediction_id, label, answered.milliseconds)

    def _reply(self, asked: _Asked, answered: _Answered) -> PredictReply:
        latency_ms = round(asked.latency_ms, 3)
        label, confidence = answered.labels[answered.best], answered.probabilities[answered.best]
        outcome = {
            "arm": answered.arm,
            "version": answered.version,
            "label": label,
            "confidence": confidence,
            "probabilities": answered.probabilities,
            "latency_ms": latency_ms,
            "version_ms": round(answered.milliseconds, 3),
            "counted": answered.counted,
            "status": "ok",
            "error": answered.error,
        }
        self._log_prediction(self._record(asked) | outcome)
        if asked.override is None:
            self.meter.answered(answered.arm, answered.version, latency_ms)
        by_label = dict(zip(answered.labels, answered.probabilities, strict=True))
        return PredictReply(
            label=label,
            confidence=confidence,
            probabilities=by_label if asked.request.return_probabilities else None,
            latency_ms=latency_ms,
            model=self.spec.name,
            model_version=answered.version,
            arm=answered.arm,
            prediction_id=asked.prediction_id,
            features_source=asked.features.source,
            features_reason=asked.features.reason,
        )

    def _record(self, asked: _Asked) -> dict[str, Any]:
        features = self.spec.features.defaults | {k: v for k, v in asked.features.values.items() if v is not None}
        return {
            "prediction_id": asked.prediction_id,
            "model": self.spec.name,
            "rollout_id": asked.route.rollout_id if asked.route else None,
            "event_timestamp": asked.event_timestamp,
            "received_at": asked.received_at,
            "customer_id": asked.request.customer_id,
            "text": asked.request.text,
            "features": features,
            "features_source": asked.features.source,
            "repeat": asked.request.repeat,
            "overridden": asked.override is not None,
            "trace_id": trace_id(),
        }

    def _failed_record(self, asked: _Asked, version: LoadedVersion, failure: Exception) -> dict[str, Any]:
        outcome = {
            "arm": "stable",
            "version": version.ref.version,
            "label": None,
            "confidence": None,
            "probabilities": None,
            "latency_ms": round(asked.latency_ms, 3),
            "status": "failed",
            "error": f"{type(failure).__name__}: {failure}"[:500],
        }
        return self._record(asked) | outcome

    def _log_prediction(self, record: dict[str, Any]) -> None:
        """Put a prediction on disk; where the model's log is best effort, count it if that cannot be done."""
        if self._append(self._predictions, record):
            self.meter.logged()
        elif self.spec.serving.log == "mandatory":
            raise self._not_logged()
        else:
            self.unlogged += 1

    def _append(self, to: AppendLog, record: dict[str, Any]) -> bool:
        """Write a record; False, and counted, where that cannot be done."""
        try:
            to.append(record)
        except LogUnavailable as error:
            self.meter.log_failed()
            self.log_error = f"the log cannot be written ({error.strerror})"
            return False
        self.log_error = None
        return True

    def _not_logged(self) -> Problem:
        detail = f"{self.log_error}, and nothing is answered that is not logged"
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "5"})

    def _check_admitted(self) -> None:
        """Refuse at once what could not be answered in time, before it costs a look-up."""
        if self.stable.current is None:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, self._why_not_ready(), headers={"Retry-After": "2"})
        if self.stable.current.batcher.full:
            self.meter.missed("stable", self.stable.current.ref.version, "overloaded")
            raise _overload(f"{self.stable.current.batcher.waiting} requests are waiting already")

    def _on_trial(self) -> CanaryRoute:
        canary = self._route.canary
        if canary is None:
            name = self.spec.name
            detail = (
                f"{name} has no canary that takes requests now; GET /models/{name}/rollout says how its last one ended"
            )
            raise Problem(HTTPStatus.CONFLICT, detail)
        return canary

    def _event_time(self, given: datetime | None, field: str, received_at: datetime) -> datetime:
        if not self._settings.replay_clock:
            if given is not None:
                raise _replay_only(field)
            return received_at
        if given is not None:
            return given
        try:
            return clock.now(self._settings)
        except clock.ClockNotSet as error:
            raise Problem(HTTPStatus.CONFLICT, str(error)) from error

    def _why_not_ready(self) -> str:
        if self.stable.error:
            return f"{self.spec.name}: {self.stable.error}"
        if self._route.stable is None:
            return f"{self.spec.name} has no version with the alias production yet; GET /health tells more"
        return f"version {self._route.stable.version} of {self.spec.name} is being loaded"


def _overload(why: str) -> Problem:
    return Problem(HTTPStatus.TOO_MANY_REQUESTS, f"overloaded: {why}", headers={"Retry-After": "1"})


def _answered_by(canary: CanaryRoute, said: Answer) -> _Answered:
    return _Answered("canary", canary.ref.version, said.labels, said.probabilities, said.milliseconds)


def _copy(asked: _Asked, route: CanaryRoute, stable_label: str) -> Copy:
    features = asked.features.values
    return Copy(route, asked.prediction_id, asked.entity, asked.request.text, features, stable_label)


def _floats(row: Any) -> tuple[float, ...]:
    return tuple(row.tolist())


def _field_problem(field: str, detail: str) -> Problem:
    errors = [{"field": field, "detail": detail}]
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{field}: {detail}", errors=errors)


def _replay_only(field: str) -> Problem:
    return _field_problem(field, "is accepted only under a replayed clock (MLOPS_REPLAY_CLOCK); leave it out")
