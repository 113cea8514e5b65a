"""A rollout for the terminal: where it stands, its two arms, the guards' evidence, and what promotion still lacks.

Pure: a rollout as the guard describes it in, something that rich can print out.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mlops_assets.ops.canary import Look
from mlops_assets.report.words import percent

_COLOURS = {"succeeded": "green", "failed": "red", "inconclusive": "yellow"}
_MARKS = {
    "pass": ("yes", "green"),
    "fail": ("no", "red"),
    "error": ("error", "red"),
    "insufficient_data": ("not yet", ""),
}
_BAR_WIDTH = 24
_HOURS_FROM = 3 * 3600.0


def as_shown(look: Look, before: Look | None = None) -> RenderableType:
    """One look at a rollout; with the one before, how many requests a second come in."""
    rollout = look.rollout
    claims = rollout["decision"].get("claims", [])
    parts: list[RenderableType] = [_headline(rollout), _arms(rollout, _rates(look, before))]
    guards = [claim for claim in claims if claim["name"].startswith("guard.")]
    if guards:
        parts += ["", _guards(guards), "", _promotion([c for c in claims if c["name"].startswith("promotion.")])]
    comparison = rollout["decision"].get("comparison")
    if comparison:
        parts += ["", _compared(comparison, rollout["policy"]["confidence"])]
    if look.trouble:
        parts.append(Text(f"this is what it last said: {look.trouble}", "yellow"))
    return Group(*parts)


def minutes(seconds: float | None) -> str:
    """How long a verdict will take, for people.

    >>> minutes(95.0), minutes(1800.0), minutes(None)
    ('2 minutes', '30 minutes', 'unknown: no traffic yet')
    >>> minutes(72 * 3600.0)
    '72.0 hours'
    """
    if seconds is None:
        return "unknown: no traffic yet"
    if seconds >= _HOURS_FROM:
        return f"{seconds / 3600:.1f} hours"
    rounded = round(seconds / 60)
    return f"{rounded} minutes" if rounded > 1 else f"{seconds:.0f} seconds"


def progress(value: float, limit: float) -> float:
    """How far an e-value is on its way from 1, no evidence, to its limit, on the logarithmic scale it grows on; 0..1.

    >>> progress(0.3, 40.0), progress(40.0, 1600.0), progress(99.0, 40.0)
    (0.0, 0.5, 1.0)
    """
    return min(1.0, max(0.0, log(max(value, 1.0)) / log(limit)))


def _headline(rollout: Mapping[str, Any]) -> Text:
    step, decision, phase = rollout["step"], rollout["decision"], rollout["phase"]
    against = f"{rollout['model']}: version {rollout['version']} beside {rollout['stable_version']}"
    lines = [Text.assemble((against, "bold"), "  ", (phase, _COLOURS.get(phase, "cyan")))]
    if phase not in _COLOURS:
        gets = "copies of the requests of" if step["shadow"] else "the requests of"
        lines += [
            Text(f"step {step['number']} of {step['of']}: the canary gets {gets} {step['weight']:.1%} of customers"),
            Text(f"expected until the verdict: {minutes(decision['expected_seconds_to_verdict'])}"),
        ]
    return Text("\n").join([*lines, Text(decision["reason"])])


def _rates(look: Look, before: Look | None) -> dict[str, str]:
    """Requests a second by arm, between two looks at the same rollout."""
    if before is None or look.at <= before.at or before.rollout.get("rollout_id") != look.rollout["rollout_id"]:
        return {}
    seconds = look.at - before.at
    now, then = look.rollout["counts"], before.rollout["counts"]
    return {arm: f"{(now[arm]['requests'] - then[arm]['requests']) / seconds:.1f}/s" for arm in ("stable", "canary")}


def _arms(rollout: Mapping[str, Any], rates: Mapping[str, str]) -> Table:
    table = Table("arm", "version", box=None, header_style="bold", padding=(0, 3, 0, 0))
    for name in ("requests", "now", "failures", "slow", "wrong", "labelled", "customers"):
        table.add_column(name, justify="right")
    for arm, version in (("stable", rollout["stable_version"]), ("canary", rollout["version"])):
        counts = rollout["counts"][arm]
        requests = counts["requests"]
        table.add_row(
            arm,
            str(version),
            f"{requests:,}",
            rates.get(arm, ""),
            _of(counts["failures"], requests),
            _of(counts["slow"], requests),
            _of(counts["wrong"], counts["judged"]),
            f"{counts['judged']:,}",
            f"{counts['entities']:,}",
        )
    return table


def _guards(claims: list[Mapping[str, Any]]) -> Table:
    table = Table("guard", "evidence against the canary", box=None, header_style="bold", padding=(0, 3, 0, 0))
    table.add_column("e", justify="right")
    table.add_column("stops at", justify="right")
    for claim in claims:
        value, limit = claim["value"], claim["limit"]
        stopped = claim["verdict"] == "fail"
        bar = ProgressBar(
            total=1.0,
            completed=progress(value, limit),
            width=_BAR_WIDTH,
            complete_style="red" if stopped else "yellow",
            finished_style="red",
        )
        table.add_row(claim["name"].removeprefix("guard."), bar, f"{value:.3g}", f"{limit:.0f}")
    return table


def _promotion(claims: list[Mapping[str, Any]]) -> Table:
    table = Table("to be promoted", "shown", "", box=None, header_style="bold", padding=(0, 3, 0, 0))
    for claim in claims:
        name = claim["name"].removeprefix("promotion.").replace("_", " ")
        table.add_row(name, Text(*_MARKS[claim["verdict"]]), Text(claim["message"], "dim"))
    return table


def _compared(comparison: Mapping[str, Any], confidence: float) -> Table:
    """The arms of an A/B test side by side, and whether that is the end of it."""
    final = comparison["final"]
    title = "A/B test, at its end" if final else Text("A/B test, not final: the intervals are for its end", "yellow")
    held = f"; all three intervals hold with {confidence:.0%} confidence" if final else ""
    table = Table("rate", box=None, header_style="bold", padding=(0, 3, 0, 0), title=title, title_justify="left")
    table.caption, table.caption_justify = f"difference: canary minus stable{held}", "left"
    for name in ("stable", "answers", "canary", "answers", "difference", "interval"):
        table.add_column(name, justify="right")
    for found in comparison["differences"]:
        shares = [f"{found[arm]:.2%}" if found[arm] is not None else "-" for arm in ("stable", "canary")]
        told = found["difference"] is not None
        table.add_row(
            found["name"].replace("_", " "),
            shares[0],
            f"{found['stable_answers']:,}",
            shares[1],
            f"{found['canary_answers']:,}",
            f"{100 * found['difference']:+.2f} points" if told else "insufficient data",
            f"{100 * found['lower']:+.2f} to {100 * found['upper']:+.2f}" if told else "-",
        )
    return table


def _of(events: int, total: int) -> str:
    return f"{events:,} ({percent(events / total)})" if total else "-"
