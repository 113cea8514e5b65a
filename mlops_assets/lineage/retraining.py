"""Retraining: the policy looks at what is known and decides, and every decision stays in a ledger.

Wiring only: the signals are gathered in `signals`, the rule is `mlops_assets.monitoring.retrain_policy`.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from mlops_assets.data.tables import write_table
from mlops_assets.lineage.loop import Loop, markdown_table
from mlops_assets.lineage.signals import gather_signals, ledger_rows, read_ledger
from mlops_assets.monitoring.retrain_policy import Action, LedgerEntry, RetrainDecision, decide, shift_began
from mlops_assets.monitoring.windows import latest_windows
from mlops_assets.storage import write_json

STAGE = "monitoring"
GROUNDS = ("validated_messages", "quality", "feature_drift", "prediction_drift", "embedding_drift")
_ROWS_SHOWN = 30


class Asked(dg.Config):
    """Whether the regular retrain is what asks."""

    schedule_due: bool = False


def retrain_decision_asset(loop: Loop) -> dg.AssetsDefinition:
    """`retrain_decision`, made with every day that is judged and when messages come in."""

    @dg.asset(
        **loop.describe(
            "retrain_decision",
            STAGE,
            "Whether to retrain now, and why: one pure rule over drift, quality, age, budget and what is in flight.",
            deps=[loop.all_days(name) for name in GROUNDS],
            kinds=["python"],
        ),
        automation_condition=_new_messages(loop),
        pool=loop.name("decisions"),  # one after the other: each has to know of the one before
    )
    def retrain_decision(context: dg.AssetExecutionContext, config: Asked) -> dg.MaterializeResult:
        signals = gather_signals(loop, context.instance, schedule_due=config.schedule_due)
        ledger, now = read_ledger(loop, context.instance), loop.now()
        decision = decide(signals, ledger, loop.spec.retrain, now)
        context.log.info(f"{decision.action.value}: {decision.reason}")
        path = _record(loop, decision, ledger, now, context.run.run_id)
        return dg.MaterializeResult(metadata=_shown(loop, decision, path))

    return retrain_decision


def decision_ledger_asset(loop: Loop) -> dg.AssetsDefinition:
    """`decision_ledger`, made anew together with each decision."""

    @dg.asset(
        **loop.describe(
            "decision_ledger",
            STAGE,
            "Every decision on retraining so far: what was known, what was decided and why, and what became of it.",
            deps=["retrain_decision"],
            kinds=["parquet"],
        ),
        automation_condition=_with_the_decision(),
    )
    def decision_ledger(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        rows = pl.DataFrame(ledger_rows(loop, context.instance), infer_schema_length=None)
        path = write_table(loop.home.evidence / "decision_ledger.parquet", rows)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": rows.height,
                "retrains": rows.filter(pl.col("action") == Action.RETRAIN.value).height,
                "decisions": _table(rows),
                "ledger": dg.MetadataValue.path(str(path)),
            }
        )

    return decision_ledger


def _new_messages(loop: Loop) -> dg.AutomationCondition:
    """Decide when messages came in; days are decided on by the job that judges them."""
    condition = dg.AutomationCondition
    messages = dg.AssetSelection.assets(loop.key("validated_messages"))
    came = condition.any_deps_match(condition.newly_updated()).allow(messages).since_last_handled()
    return came & ~condition.in_progress()


def _with_the_decision() -> dg.AutomationCondition:
    condition = dg.AutomationCondition
    return condition.any_deps_match(condition.will_be_requested()) & ~condition.in_progress()


def _record(loop: Loop, decision: RetrainDecision, ledger: Sequence[LedgerEntry], now: datetime, run_id: str) -> Path:
    """Keep the decision with everything it looked at."""
    identity = f"{now:%Y%m%dT%H%M%S}-{run_id[:8]}"
    document = {
        "id": identity,
        "at": now,
        "decided": datetime.now(UTC),
        "labels": decision.labels,
        "shift_began": shift_began(decision, loop.spec.retrain),
        "ledger": [asdict(entry) for entry in ledger],
        **asdict(decision),
    }
    return write_json(loop.home.evidence / "retrain" / f"{identity}.json", document)


def _shown(loop: Loop, decision: RetrainDecision, path: Path) -> dict[str, Any]:
    judged = latest_windows(loop.home.windows, "drift", 1)
    return {
        "decision": path.stem,
        "action": decision.action.value,
        "cause": decision.cause.value if decision.cause else "",
        "reason": decision.reason,
        "judged_until": _end_of(judged[-1]["day"]) if judged else loop.spec.data.start.isoformat() + "T00:00Z",
        "evidence": dg.MetadataValue.path(str(path)),
    }


def _end_of(day: str) -> str:
    return (datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1)).isoformat()


def _table(rows: pl.DataFrame) -> dg.MetadataValue:
    """The latest decisions, newest first."""
    columns = ("at", "action", "cause", "reason", "outcome")
    newest = rows.reverse().head(_ROWS_SHOWN).select(columns).iter_rows()
    return markdown_table(columns, ((f"{at:%Y-%m-%d %H:%M}", *others) for at, *others in newest))
