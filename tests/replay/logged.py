"""A rollout as it is recorded: requests are split and counted by the endpoint's own tally and kept by its keeper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mlops_assets.monitoring.predictions import read_feedback, read_requests
from mlops_assets.release.assignment import in_canary
from mlops_assets.release.rollout import RolloutState
from mlops_assets.serving.keeper import Keeper
from mlops_assets.serving.routing import Label, VersionRef
from mlops_assets.serving.tally import RolloutTally
from mlops_assets.spec import CanarySpec, ModelSpec
from tests.monitoring.test_predictions import label, log, prediction

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EXCHANGE = 2.0
ONE, TWO = (VersionRef(n, f"/models/{n}", f"digest{n}") for n in (1, 2))


@dataclass(frozen=True)
class Canary:
    """How a canary behaves: shares of its answers that fail, are slow, are wrong."""

    failures: float = 0.0
    slow: float = 0.0
    wrong: float = 0.0


@dataclass(frozen=True)
class Logged:
    """What is on record of a rollout."""

    state: RolloutState
    requests: pl.DataFrame
    feedback: pl.DataFrame


def record(
    folder: Path,
    policy: CanarySpec,
    canary: Canary = Canary(),
    *,
    minutes: float = 40,
    per_second: float = 8.0,
    first: int = 0,
    stop: Callable[[Keeper, datetime], None] | None = None,
) -> Logged:
    """Let a canary be judged for so long; customers are 2,000, every answer's label comes a second later.

    The requests are load, numbered from `first` on: they are no day's messages.
    """
    keeper = Keeper(ModelSpec(name="m", canary=policy), folder / "rollout", time_scale=1.0)
    keeper.follow(ONE, TWO, 2, NOON)
    keeper.canary_ready(TWO, "life", NOON)
    tally, rng = RolloutTally(), np.random.default_rng(0)
    predictions: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    waiting: list[tuple[datetime, Label]] = []
    for number in range(int(minutes * 60 * per_second)):
        now = NOON + timedelta(seconds=number / per_second)
        while waiting and waiting[0][0] <= now:
            tally.judged(waiting.pop(0)[1])
        if number % round(EXCHANGE * per_second) == 0:
            if (counts := tally.report()) is not None:
                keeper.absorb("replica", counts, now)
            if stop is not None:
                stop(keeper, now)
            tally.follow(keeper.route().canary)
        route = keeper.route().canary
        if route is None:
            break
        entity, identity = f"c{rng.integers(2000)}", f"p{first + number}"
        arm = "canary" if in_canary(entity, route.salt, route.weight) else "stable"
        draw, mine = rng.random(3), arm == "canary"
        failed, took = mine and draw[0] < canary.failures, 900.0 if mine and draw[1] < canary.slow else 5.0
        answered = arm if not failed else "stable"
        if failed:
            tally.failed(route, "canary", entity)
        else:
            tally.answered(route, arm, entity, identity, "query", took)  # type: ignore[arg-type]
            truth = "refund" if draw[2] < (canary.wrong if mine else 0.0) else "query"
            known = now + timedelta(seconds=1)
            waiting.append((known, Label(identity, truth)))
            labels.append(label(first + number, known, truth))
        times = {"received_at": now.isoformat(), "event_timestamp": now.isoformat()}
        counted = {"rollout_id": route.rollout_id, "counted": arm, "version_ms": took, "latency_ms": 0.1}
        said = {"arm": answered, "version": 2 if answered == "canary" else 1, "label": "query"}
        predictions.append(prediction(first + number, customer_id=entity, repeat=True, **times, **counted, **said))
    requests = read_requests(log(folder / "predictions", *predictions)).rows
    feedback = read_feedback(log(folder / "feedback", *labels)).rows
    return Logged(RolloutState.from_dict(keeper.evidence()["rollout"]), requests, feedback)
