"""What one model's YAML may say: every field with its unit, default and meaning.

The spec is the contract between the person who declares a model and every stage that reads it. It
travels with each registered version, so a decision can be replayed under the spec of its day.
Pure: it knows neither Dagster nor the libraries that carry it out.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

DEFAULT_LABELS = ("greeting", "farewell", "query", "complaint", "order_status", "refund", "other")
DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
FEATURES = ("orders_90d", "spend_90d", "return_share_90d", "mean_basket_90d", "tenure_days")

# Dagster's own rule; there it would be broken only once the graph is built.
_OWNER = re.compile(r"team:.+|[A-Za-z0-9_][A-Za-z0-9._%+-]*@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")


def _feature(name: str) -> str:
    if name not in FEATURES:
        raise ValueError(f"no feature of the view customer_profile; there are: {', '.join(FEATURES)}")
    return name


def _owner(name: str) -> str:
    if not _OWNER.fullmatch(name):
        raise ValueError("an owner is an e-mail address or team:name")
    return name


def _cron(text: str) -> str:
    from croniter import CroniterError, croniter

    try:
        fields, _ = croniter.expand(text)
        croniter(text, datetime(2024, 1, 1, tzinfo=UTC)).get_next()  # refuses a day that never comes
    except CroniterError as error:
        raise ValueError(f"no cron schedule ({error}); `0 2 * * 1` is every Monday at 02:00") from error
    if len(fields) != 5:
        raise ValueError("a cron schedule has five fields: minute hour day month weekday")
    return text


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Label = Annotated[str, StringConstraints(min_length=1)]
Feature = Annotated[str, AfterValidator(_feature)]
Owner = Annotated[str, AfterValidator(_owner)]
Cron = Annotated[str, AfterValidator(_cron)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
_CENTURY = 36_525  # days; a date so long before or after the data is still one


class Part(BaseModel):
    """A section of the YAML: unknown fields are refused, so that a typo is never silently ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Columns(Part):
    """What the user's files call our columns."""

    message_id: str = "message_id"
    customer_id: str = "customer_id"
    text: str = "text"
    label: str = "label"
    event_timestamp: str = Field("event_timestamp", description="When the message arrived.")
    label_timestamp: str = Field("label_timestamp", description="When its label became known.")


class DataSpec(Part):
    """The data contract and how rows are split."""

    start: date = Field(date(2026, 1, 1), description="First day that can hold data (event time, UTC).")
    columns: Columns = Columns()
    labels: tuple[Label, ...] = Field(DEFAULT_LABELS, min_length=2, description="The closed set of labels.")
    max_text_length: int = Field(512, ge=1, description="Characters; a longer text is quarantined.")
    labels_within_days: int = Field(
        10,
        ge=1,
        le=_CENTURY,
        description="A label that comes within so many days joins its answer by itself, a later one by a backfill.",
    )
    max_quarantined_share: Share = Field(0.05, description="More bad rows than this in a batch stop the line.")
    test_share: float = Field(0.2, gt=0, lt=1, description="Share of every period held out for ever as test rows.")
    validation_share: float = Field(0.1, gt=0, lt=1, description="Share of the training rows that a trial stops on.")
    near_duplicate_similarity: float = Field(
        0.9, gt=0, le=1, description="Jaccard similarity of words from which two texts count as near-duplicates."
    )

    @field_validator("labels")
    @classmethod
    def _labels_unique(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) != len(labels):
            raise ValueError("labels must be unique")
        return labels


class FeatureSpec(Part):
    """Which customer features join the text, and what stands in when one cannot be had."""

    defaults: dict[Feature, float] = Field(
        default_factory=lambda: dict.fromkeys(FEATURES, 0.0),
        description="Feature of the view `customer_profile` -> value where customer or store cannot be reached.",
    )
    deadline_ms: float = Field(20.0, gt=0, description="An online look-up that takes longer yields the defaults.")
    skew_sample: int = Field(500, ge=1, description="Customers whose served values are replayed offline.")
    known_at_event: tuple[str, ...] = Field(
        (),
        description="Features that tell the label by themselves and are vouched for: known when the message arrives.",
    )

    @model_validator(mode="after")
    def _known_are_features(self) -> FeatureSpec:
        strangers = sorted(set(self.known_at_event) - set(self.defaults))
        if strangers:
            raise ValueError(f"known_at_event names what is no feature: {', '.join(strangers)}")
        return self


class EncoderSpec(Part):
    """The pretrained text encoder; another one than the default has no revision and no digest but its own."""

    name: str = Field(DEFAULT_ENCODER, description="A local path or a hub id.")
    revision: str | None = Field(
        "1110a243fdf4706b3f48f1d95db1a4f5529b4d41", description="Commit on the hub; null: the newest."
    )
    weights_sha256: Sha256 | None = Field(
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        description="Expected SHA-256 of model.safetensors; null: not checked.",
    )
    max_tokens: int = Field(128, ge=8, le=512, description="Tokens; the rest of a text is cut off.")

    @model_validator(mode="before")
    @classmethod
    def _of_another(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("name", DEFAULT_ENCODER) != DEFAULT_ENCODER:
            return {"revision": None, "weights_sha256": None} | given
        return given


class SearchSpec(Part):
    """The configurations to try: the cross product of the lists."""

    learning_rate: tuple[Annotated[float, Field(gt=0)], ...] = Field((1e-3, 3e-3), min_length=1)
    batch_size: tuple[Count, ...] = Field((128,), min_length=1)
    epochs: tuple[Count, ...] = Field((30,), min_length=1, description="At most; early stopping ends a trial sooner.")
    dropout: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field((0.1, 0.3), min_length=1)


class TrainingSpec(Part):
    """How a candidate is trained."""

    finetune: Literal["head", "last_n", "full"] = "head"
    last_n: int = Field(2, ge=1, description="Encoder layers that train with finetune: last_n.")
    hidden_units: int = Field(128, ge=1, description="Width of the head's hidden layer.")
    search: SearchSpec = SearchSpec()
    early_stopping_epochs: int = Field(4, ge=1, description="Epochs without a better validation F1.")
    label_smoothing: float = Field(0.05, ge=0, lt=0.5, description="Share of each label spread over all labels.")
    recent_days: int = Field(7, ge=0, le=_CENTURY, description="Rows of this many last days get `recent_weight`.")
    recent_weight: float = Field(5.0, ge=1, description="Loss weight of recent rows; 1: all rows alike.")
    seed: int = Field(20260301, ge=0, lt=2**32, description="Of everything that is drawn: weights, rows, bootstraps.")


class GateSpec(Part):
    """What a candidate must prove before it may become a canary."""

    min_f1: Share = Field(0.92, description="Weighted F1; the 95 % lower bound on the whole test set must exceed it.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the lower bounds.")
    max_latency_ms: float = Field(50.0, gt=0, description="One message through the exported predictor.")
    latency_percentile: float = Field(0.99, gt=0, lt=1, description="Share of queries that must be within it.")
    champion_margin: Share = Field(0.01, description="Loss of weighted F1 against the champion that is tolerated.")
    label_margin: Share = Field(0.10, description="The same per label.")
    newest_margin: Share = Field(0.03, description="The same on the newest window, which has few rows.")
    max_calibration_error: Share = Field(0.10, description="Mean distance between confidence and accuracy (ECE).")
    min_test_rows: int = Field(300, ge=1, description="Fewer test rows: insufficient_data.")
    max_entity_leakage: Share = Field(
        0.10,
        description="Share of test rows that their customer's training labels may give away; a tenth can raise an F1 "
        "of 0.92 by no more than 0.008, for most of these rows are answered rightly anyway.",
    )
    max_column_effect: Share = Field(
        0.10, description="Cramér's V with the label from which a feature has to be vouched for (known_at_event)."
    )


class DriftSpec(Part):
    """When a daily window counts as drifted."""

    alpha: float = Field(0.01, gt=0, lt=1, description="Error rate per window, after correction over features.")
    reference_days: float = Field(
        7.0,
        gt=0,
        le=_CENTURY,
        description="The reference: held-out rows of so many last days, none from before a shift ...",
    )
    reference_min_rows: int = Field(100, ge=30, description="... or more days, until it has so many rows.")
    min_rows: int = Field(30, ge=1, description="A smaller window is insufficient_data.")
    psi: float = Field(0.2, gt=0, description="Population stability index limit (and above its sampling noise).")
    ks_effect: Share = Field(
        0.2, description="Least Kolmogorov-Smirnov distance (of categories: total variation distance) that counts."
    )
    mmd_effect: Share = Field(0.02, description="Least MMD^2, relative to the mean similarity of rows, that counts.")
    share_effect: Share = Field(0.15, description="Least change in the share of missing or unseen values that counts.")
    permutations: int = Field(999, ge=99, description="Of the MMD test on embeddings.")
    mmd_rows: int = Field(500, ge=50, description="Rows drawn from reference and window for MMD.")


class CanarySpec(Part):
    """How a version is released."""

    weights: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.10,), min_length=1, description="The ladder: shares of customers in the canary arm, one per step, rising."
    )
    shadow_minutes: float = Field(
        0.0, ge=0, description="Least time of a step before these, with copies of requests only; 0: no such step."
    )
    minutes: float = Field(30.0, gt=0, description="Least time at each step.")
    max_minutes: float = Field(240.0, gt=0, description="Without a verdict by then: inconclusive, stable stays.")
    ab_hours: float = Field(
        0.0,
        ge=0,
        description="An A/B test: the last weight is held for exactly so long (`max_minutes` is for the steps before), "
        "stopped for harm alone; then the arms' comparison waits for a person. 0: no such test.",
    )
    min_success: Share = Field(0.99, description="Success rate whose lower bound a canary must exceed.")
    max_p99_ms: float = Field(100.0, gt=0, description="P(latency above this) must be below 1 %, by its upper bound.")
    max_slow_ratio: float = Field(2.0, ge=1, description="Slow answers this many times stable's are tolerated.")
    max_accuracy_loss: Share = Field(0.05, description="Loss of accuracy against the stable arm that is tolerated.")
    alpha: float = Field(0.05, gt=0, lt=1, description="False-abort rate, split over the guards.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the promotion bounds.")
    approval: Literal["none", "manual"] = Field(
        "none", description="manual: a version that was judged fit waits for a person (`mlops approve`)."
    )

    @model_validator(mode="after")
    def _ladder_rises_in_time(self) -> CanarySpec:
        if list(self.weights) != sorted(set(self.weights)):
            raise ValueError(f"weights must rise from step to step, and are {list(self.weights)}")
        least = self.shadow_minutes + self.minutes * (len(self.weights) - bool(self.ab_hours))
        if least > self.max_minutes * (1 + 1e-9):  # a policy whose times were all scaled is as good as it was
            raise ValueError(f"max_minutes ({self.max_minutes:g}) ends before the steps can ({least:g} minutes)")
        return self

    def scaled(self, scale: float) -> CanarySpec:
        """The same policy with every time `scale` times as long.

        >>> CanarySpec().scaled(1 / 60).minutes
        0.5
        """
        names = ("shadow_minutes", "minutes", "max_minutes", "ab_hours")
        return self.model_copy(update={name: getattr(self, name) * scale for name in names})

    @property
    def asks_a_person(self) -> bool:
        """Whether nothing is promoted that a person has not agreed to."""
        return self.approval == "manual" or self.ab_hours > 0


class ServingSpec(Part):
    """What the endpoint promises about one model."""

    deadline_ms: float = Field(
        1000.0, gt=0, description="A message that would wait, or did wait, longer for its turn is refused with 429."
    )
    log: Literal["mandatory", "best_effort"] = Field(
        "mandatory",
        description="What happens to a prediction that cannot be logged: mandatory refuses it with 503, best_effort "
        "answers it, counts it in /health and the server's log.",
    )


class MonitorSpec(Part):
    """What is watched in production."""

    max_f1_drop: Share = Field(0.05, description="Tolerated drop of F1 and accuracy below what the gate saw.")
    max_missing_share: Share = Field(0.05, description="Missing values in a required column at arrival.")
    min_labels: int = Field(30, ge=1, description="Fewer labels: the day's quality is insufficient_data.")
    max_p99_ms: float = Field(100.0, gt=0, description="At most 1 % of the answers may take longer.")
    min_throughput: Share = Field(0.5, description="Requests of an hour, of its usual number, that must at least come.")
    max_busy: Share = Field(0.9, description="Share of CPU or GPU in use that is too much ...")
    busy_minutes: float = Field(5.0, gt=0, description="... for so long without a break.")
    pages_per_quarter: float = Field(
        1.0,
        gt=0,
        le=90,
        description="False pages in 90 days at most; the limits of all paging monitors follow from it.",
    )


class RetrainSpec(Part):
    """When there is reason to retrain, and when there is not yet."""

    windows: int = Field(3, ge=1, description="Debounce: of so many last windows ...")
    drifted: int = Field(2, ge=1, description="... at least so many drifted, the latest among them.")
    min_new_labels: int = Field(400, ge=1, description="Labels known from the drifted windows before training on them.")
    cooldown_days: float = Field(2.0, ge=0, le=_CENTURY, description="After a retrain, in event time.")
    max_per_week: int = Field(3, ge=1, description="Budget of retrains.")
    max_age_days: float = Field(30.0, ge=0.01, le=_CENTURY, description="A production model older than this is stale.")
    schedule: Cron = Field("0 2 * * 1", description="The regular retrain, UTC: minute hour day month weekday.")

    @model_validator(mode="after")
    def _debounce_possible(self) -> RetrainSpec:
        if self.drifted > self.windows:
            raise ValueError(f"drifted ({self.drifted}) cannot exceed windows ({self.windows})")
        return self


class ModelSpec(Part):
    """One declared closed loop.

    >>> ModelSpec(name="intent_classifier").gate.min_f1
    0.92
    """

    name: Name
    description: str = ""
    owners: tuple[Owner, ...] = Field((), description="E-mail addresses or team:names shown in the UI.")
    data: DataSpec = DataSpec()
    features: FeatureSpec = FeatureSpec()
    encoder: EncoderSpec = EncoderSpec()
    training: TrainingSpec = TrainingSpec()
    gate: GateSpec = GateSpec()
    drift: DriftSpec = DriftSpec()
    serving: ServingSpec = ServingSpec()
    canary: CanarySpec = CanarySpec()
    monitors: MonitorSpec = MonitorSpec()
    retrain: RetrainSpec = RetrainSpec()
