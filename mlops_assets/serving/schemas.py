"""The bodies of requests and replies, with the examples that the OpenAPI page shows.

Only what holds for every model is checked here; a model's own text limit and labels are checked by
the service that knows its spec.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from mlops_assets.serving import openapi


def _encodable(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("contains half of a surrogate pair, which is no character") from error
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies outside of the years 1 to 9999 in UTC") from error


def _in_one_line(value: str) -> str:
    """So that whoever gives a reason cannot write lines of their own into the log that quotes it."""
    return " ".join(value.split())


Text = Annotated[str, AfterValidator(_encodable)]
Line = Annotated[Text, Field(pattern=r"\S"), AfterValidator(_in_one_line)]
Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]

MAX_INSTANCES = 64


class Body(BaseModel):
    """A request body: unknown fields are refused, so that a typo is not silently ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class PredictRequest(Body):
    """One message to classify."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"text": "Where is my parcel?", "customer_id": "C-17", "return_probabilities": True},
            ]
        }
    )

    text: Text = Field(min_length=1, description="The message; the model's spec limits its length (512 by default).")
    customer_id: Text | None = Field(
        None, min_length=1, max_length=128, description="Whose features to look up; also keeps a customer in one arm."
    )
    return_probabilities: bool = Field(False, description="Add the probability of every label to the reply.")
    event_timestamp: Moment | None = Field(
        None, description="When the message arrived. Only under a replayed clock; otherwise it is now."
    )
    repeat: bool = Field(
        False, description="A message that is sent again as load; windows and training skip it. Replayed clock only."
    )


class PredictReply(BaseModel):
    """The label of one message, and who gave it."""

    model_config = ConfigDict(protected_namespaces=(), json_schema_extra={"examples": [openapi.PREDICTION]})

    label: str
    confidence: float
    probabilities: dict[str, float] | None = None
    latency_ms: float
    model: str
    model_version: int
    arm: Literal["stable", "canary"]
    prediction_id: str
    features_source: Literal["online", "default"]
    features_reason: str | None = Field(None, description="Why defaults stood in for the customer's features.")


class FieldError(BaseModel):
    """What is wrong with one field of a request."""

    field: str
    detail: str


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 (section 3.1) has it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = Field(None, description="One entry per field at fault, if fields are at fault.")


class BatchRequest(Body):
    """Some messages to classify, each as if it had come alone."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"instances": [{"text": "Where is my parcel?", "customer_id": "C-17"}, {"text": "Money back, please"}]}
            ]
        }
    )

    # Any: an instance is checked by itself, so that a faulty one does not cost the others their answer.
    instances: list[Any] = Field(
        min_length=1,
        max_length=MAX_INSTANCES,
        description="Answered in this order. The whole body has the size limit of any other.",
        json_schema_extra={"items": {"$ref": "#/components/schemas/PredictRequest"}},
    )


class BatchReply(BaseModel):
    """One entry per instance, in their order."""

    model_config = ConfigDict(json_schema_extra={"examples": [openapi.BATCH]})

    predictions: list[PredictReply | ProblemDocument] = Field(description="A problem where there is no answer.")
    failed: int = Field(description="How many of the predictions are problems.")


class FeedbackRequest(Body):
    """The true label of an earlier prediction."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prediction_id": "0b7d0c1e5a0f4b55a2b4a8c9e0a1f3d2", "label": "order_status"}]}
    )

    prediction_id: Text = Field(min_length=1, max_length=64)
    label: Text = Field(min_length=1, max_length=128)
    label_timestamp: Moment | None = Field(
        None, description="When the label became known. Only under a replayed clock; otherwise it is now."
    )


class FeedbackReply(BaseModel):
    """The label is on disk; it is joined with its prediction later."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prediction_id": openapi.PREDICTION["prediction_id"], "accepted": True}]}
    )

    prediction_id: str
    accepted: Literal[True] = True


class ApprovalBody(Body):
    """Who agreed to a promotion, and when."""

    by: Line = Field(max_length=128)
    at: Moment


class SealRequest(Body):
    """Ask to promote: from a "sealed" on, the guard can no longer abort."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"version": 4, "approval": {"by": "Ada", "at": "2026-03-01T12:00:00Z"}}]}
    )

    version: int = Field(ge=1)
    approval: ApprovalBody | None = Field(None, description="Needed where the canary's policy says `approval: manual`.")


class AbortRequest(Body):
    """Stop a rollout by hand."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 4, "reason": "complaints by telephone"}]})

    version: int = Field(ge=1)
    reason: Line = Field(max_length=500)


class RolloutAnswer(BaseModel):
    """What the guard said, and the phase it left the rollout in."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"answer": "sealed", "phase": "sealed"}]})

    answer: str
    phase: str


class ClockRequest(Body):
    """Move the replayed clock."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"now": "2026-03-01T12:00:00Z"}]})

    now: Moment


class ClockReply(BaseModel):
    """Where the clock stands."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"now": "2026-03-01T12:00:00Z"}]})

    now: datetime
