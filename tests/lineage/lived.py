"""Days that a model in production lives through, judged by the real jobs in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import numpy as np
import polars as pl

from mlops_assets import clock
from mlops_assets.drift.observed import REFERENCE, observe
from mlops_assets.drift.profile import build_profile
from mlops_assets.lineage.loop import Loop
from mlops_assets.monitoring.estimate import measure_calibration
from mlops_assets.training.artefact import Predictor
from tests.lineage.world import run_days
from tests.monitoring.test_predictions import label, log, prediction
from tests.serving.factories import DEFAULTS, LABELS, write_artefact

DAY = datetime(2026, 3, 1, tzinfo=UTC)
SURE = [0.9 if name == "query" else 0.1 / 6 for name in LABELS]  # what the tiny model says of every message


def in_production(registered: Loop) -> Loop:
    """A model in production that answers `query` to everything, and was right in 9 of 10 test rows."""
    loop = replace(registered, settings=registered.settings.model_copy(update={"replay_clock": True}))
    clock.move(loop.settings, DAY)
    registry, folder = loop.registry(), loop.settings.home / "export"
    digest = write_artefact(folder, "query")
    texts = [f"where is order {number}" for number in range(200)]
    window = observe(
        Predictor.load(folder, expected_digest=digest), texts, pl.DataFrame([DEFAULTS] * 200), [None] * 200
    )
    build_profile(window, labels=LABELS).save(folder / REFERENCE)
    tags = {"gate": "pass", "trained_until": DAY.isoformat(), "production_since": DAY.isoformat()}
    version = registry.register("m", None, folder, digest, "tiny", tags).version
    truth = np.where(np.arange(1000) % 10 > 0, LABELS.index("query"), LABELS.index("refund"))
    gate = {
        "metrics": {"f1_weighted": 0.85, "accuracy": 0.9},
        "calibration": measure_calibration(np.tile(SURE, (1000, 1)), truth).to_dict(),
    }
    registry.attach_evidence("m", version, "gate", gate)
    registry.move_alias("m", "production", version, expected=None, evidence_name="gate")
    return loop


def live_through(
    loop: Loop,
    day: datetime,
    *,
    wrong: float,
    rows: int = 150,
    latency_ms: float = 5.0,
    text: str = "",
    probabilities: Sequence[float] = SURE,
) -> None:
    """A day of answers, their labels known by its end, a share of them wrong; `text` ends two messages of three."""
    first = round((day - DAY).total_seconds())
    answers = [
        prediction(
            first + n,
            customer_id=f"c{n}",
            label="query",
            text=f"where is order {n}{text if n % 3 else ''}",
            probabilities=probabilities,
            features=DEFAULTS,
            event_timestamp=(day + timedelta(hours=23, minutes=59 * n / rows)).isoformat(),
            received_at=(day + timedelta(hours=23, minutes=59 * n / rows)).isoformat(),
            latency_ms=latency_ms,
        )
        for n in range(rows)
    ]
    known = day + timedelta(hours=23, minutes=59, seconds=59)
    truth = ["refund" if 37 * n % 100 < 100 * wrong else "query" for n in range(rows)]
    log(loop.home.predictions, *answers, segment=f"{day:%Y%m%d}")
    log(loop.home.feedback, *(label(first + n, known, said) for n, said in enumerate(truth)), segment=f"{day:%Y%m%d}")
    clock.move(loop.settings, day + timedelta(days=1))


def judged(loop: Loop, instance: dg.DagsterInstance, day: datetime) -> dict[str, dg.AssetCheckEvaluation]:
    """The checks of the job that judges a day, by name."""
    result = run_days(loop, instance, "judge_days", day, day)
    assert result.success
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
