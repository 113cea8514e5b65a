"""The monitors of answers and data: figures in, a verdict with its evidence out.

A plain rule of the field is always reported; the calibrated rule acts. What a monitor that may wake somebody
finds is a score, so that one budget can set the limits of all (`alarm_budget`). The monitors of the
serving itself are in `serving_monitors`; getting the figures, and telling anybody, is left to the caller.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from scipy.stats import binom, norm

from mlops_assets.monitoring.correctness import Correctness
from mlops_assets.monitoring.estimate import Estimate
from mlops_assets.monitoring.quality import CONFIDENCE, Quality
from mlops_assets.spec import MonitorSpec
from mlops_assets.verdict import Verdict, worst

PSI_LIMIT = 0.2
KS_LIMIT = 0.01
MAX_SCORE = 300.0
_FALLING_DAYS = 3


@dataclass(frozen=True)
class MonitorResult:
    """One monitor's outcome.

    Attributes:
        value, limit: the figure and what it is held against, in the monitor's unit; None: there is none.
        n: on how many rows, labels or samples it rests.
        plain_rule, plain: a plain rule of the field and what it says of the same figures; None: it cannot say.
        score: evidence that the true figure is beyond what is tolerated, as `score` makes it of a p-value;
            None for a monitor that wakes nobody, and where it could not say.
    """

    name: str
    verdict: Verdict
    value: float | None
    limit: float | None
    n: int
    message: str
    plain_rule: str
    plain: bool | None
    score: float | None = None


def score(p_value: float) -> float:
    """How surprising a p-value is, as -log10; a score s comes about by chance with probability at most 10^-s.

    >>> score(0.001), score(0.0)
    (3.0, 300.0)
    """
    return min(-math.log10(p_value), MAX_SCORE) + 0.0 if p_value > 0 else MAX_SCORE


TICKET = score(1 - CONFIDENCE)  # from which a single figure is worth a note, though not a page
UPPER_END = score(0.025)  # from which the whole 95 % interval lies below the limit


def f1_drop(quality: Quality, promised_f1: float, spec: MonitorSpec, act_at: float = TICKET) -> MonitorResult:
    """Realised weighted F1 against the F1 that the gate saw.

    Null: the true weighted F1 is at least `promised_f1` - `max_f1_drop`. The p-value is the normal tail of the
    distance to that limit, in standard errors: the larger of the bootstrap's and that of a share at the limit,
    as few errors make the bootstrap too sure of itself. A model exactly at the limit reaches `act_at` on at most
    10^-act_at of the days (simulated in the tests), one above it far more rarely. The plain rule compares the
    point itself, which fails half of the days at the limit.
    """
    limit = promised_f1 - spec.max_f1_drop
    rule = f"F1 < {limit:.3f} (promised {promised_f1:.3f} less {spec.max_f1_drop:g})"
    f1, high = quality.f1_weighted, quality.f1_high
    if f1 is None or high is None or quality.labels < spec.min_labels:
        message = f"{quality.labels} labels are known, {spec.min_labels} are needed"
        plain = None if f1 is None else f1 < limit
        return MonitorResult("f1", Verdict.INSUFFICIENT_DATA, f1, limit, quality.labels, message, rule, plain)
    at_limit = math.sqrt(max(limit * (1 - limit), 0.0) / quality.labels)
    found = _below(f1, limit, max((high - f1) / norm.ppf(CONFIDENCE), at_limit))
    message = f"weighted F1 {f1:.3f} from {quality.labels} labels, limit {limit:.3f}; {by_chance(found)}"
    return MonitorResult("f1", acts(found, act_at), f1, limit, quality.labels, message, rule, f1 < limit, score=found)


def estimated_f1(estimate: Estimate | None, promised_f1: float, spec: MonitorSpec, act_at: float) -> MonitorResult:
    """Weighted F1 expected from the confidences, against what was promised: what a drift costs before labels come.

    Null: the F1 that all labels of the day would show is at least `promised_f1` - `max_f1_drop`. The p-value is
    the normal tail of the distance to that limit, by the estimate's own interval; it holds where probabilities
    mean what they meant on held-out rows. The plain rule compares the point.

    It is what makes a drift a page: where drift is confirmed (two days in a row, which by the drift engine's error
    rate of 1 % comes about once in 10,000 quiet days), the interval's upper end below the promise suffices, so
    `act_at` is `UPPER_END` then; on its own it needs the evidence of every page.
    """
    limit = promised_f1 - spec.max_f1_drop
    rule = f"estimated F1 < {limit:.3f}"
    if estimate is None:
        message = "no predictions, or a version whose calibration was never measured"
        return MonitorResult("estimated_f1", Verdict.INSUFFICIENT_DATA, None, limit, 0, message, rule, None)
    f1, high = estimate.f1_weighted, estimate.f1_high
    found = _below(f1, limit, (high - f1) / norm.ppf(0.975))
    message = f"estimated F1 {f1:.3f}, at most {high:.3f} (95 % interval), limit {limit:.3f}; {by_chance(found)}"
    plain = f1 < limit
    return MonitorResult(
        "estimated_f1", acts(found, act_at), f1, limit, estimate.rows, message, rule, plain, score=found
    )


def correctness(
    found: Correctness, daily: Sequence[Quality], spec: MonitorSpec, act_at: float = TICKET
) -> MonitorResult:
    """Answers as right as promised, by the e-process that may be looked at at any time (see `correctness`).

    Null and error rate are the e-process's: a version that keeps its promise ever reaches `act_at` with
    probability at most 10^-act_at, over its whole life. The plain rule, accuracy that fell three days in
    a row, is reported: it fires on noise in 63 % of quiet months. `daily` holds consecutive days, the latest last.
    """
    rule, plain = f"accuracy falls {_FALLING_DAYS} days in a row", falls(daily, spec)
    if found.labels < spec.min_labels:
        message = f"{found.labels} labels of this version are known, {spec.min_labels} are needed"
        return MonitorResult(
            "correctness", Verdict.INSUFFICIENT_DATA, None, found.promised, found.labels, message, rule, plain
        )
    accuracy, evidence = 1 - found.wrong / found.labels, score(found.p_value)
    since = f", getting worse since {found.since:%Y-%m-%d %H:%M}" if found.since and evidence >= act_at else ""
    message = (
        f"{found.wrong} of {found.labels} answers wrong, promised are {found.promised:.1%} right{since}; "
        f"{by_chance(evidence)}, however often one looks"
    )
    verdict = acts(evidence, act_at)
    return MonitorResult(
        "correctness", verdict, accuracy, found.promised, found.labels, message, rule, plain, score=evidence
    )


def not_judged(name: str, version: int) -> MonitorResult:
    """What a monitor that holds a version to its gate's figures says of one that went past the gate without any."""
    message = f"version {version} was not judged by the gate: there is no figure to hold it to"
    return MonitorResult(name, Verdict.INSUFFICIENT_DATA, None, None, 0, message, "as the gate promised", None)


def falls(daily: Sequence[Quality], spec: MonitorSpec) -> bool | None:
    """Whether accuracy fell on each of the last three days; None where a day among them has too few labels."""
    recent = daily[-(_FALLING_DAYS + 1) :]
    known = [day.accuracy for day in recent if day.accuracy is not None and day.labels >= spec.min_labels]
    if len(known) <= _FALLING_DAYS:
        return None
    return all(after < before for before, after in pairwise(known))


def missing_values(missing: Mapping[str, int], rows: int, spec: MonitorSpec, act_at: float) -> MonitorResult:
    """The share of missing values of the worst of several columns at arrival.

    Null: no column's true share exceeds `max_missing_share`. The p-value is the exact binomial tail (Clopper and
    Pearson, 1934) times the columns (Bonferroni). With too few rows to rule out a share above the limit it says
    `insufficient_data`, unless the alarm is clear already.

    Raises:
        ValueError: a count is not between 0 and `rows`, or there is no column.
    """
    limit, rule = spec.max_missing_share, f"share missing > {spec.max_missing_share:g}"
    if not missing or not all(0 <= count <= rows for count in missing.values()):
        raise ValueError(f"{dict(missing)} of {rows} rows missing")
    if rows == 0:
        return MonitorResult("missing_values", Verdict.INSUFFICIENT_DATA, None, limit, 0, "no rows", rule, None)
    column = max(missing, key=lambda name: missing[name])
    count, share = missing[column], missing[column] / rows
    found = score(min(1.0, float(binom.sf(count - 1, rows, limit)) * len(missing)))
    message = f"{column}: {count} of {rows} values missing ({share:.1%}), limit {limit:.1%}; {by_chance(found)}"
    if count == 0:
        message = f"no value of {len(missing)} columns is missing in {rows} rows"
    verdict, needed = acts(found, act_at), rows_for_missing(limit)
    if verdict is Verdict.PASS and rows < needed:
        verdict, message = Verdict.INSUFFICIENT_DATA, f"{message}; {needed} rows are needed"
    return MonitorResult("missing_values", verdict, share, limit, rows, message, rule, share > limit, score=found)


def rows_for_missing(limit: float) -> int:
    """Rows from which a batch without a missing value rules out a share above `limit`, at 99 %.

    >>> rows_for_missing(0.05)
    90
    """
    if limit <= 0 or limit >= 1:
        return 1
    return math.ceil(math.log(0.01) / math.log1p(-limit))


def prediction_mix(window: Mapping[str, Any]) -> MonitorResult:
    """The mix of predicted labels, as a day's drift document judged it, corrected for noise and for looking often.

    The plain rule is PSI > 0.2: with 20 labels it alarms on 98 % of quiet windows of 50 rows, on 1 % of 200.
    """
    results = [result for result in _results(window, "prediction") if result["column"] == "predicted"]
    psi = next((result["statistic"] for result in results if result["statistic_name"] == "psi"), None)
    verdict = worst(Verdict(result["verdict"]) for result in results)
    message = "; ".join(result["message"] for result in results if result["message"]) or _in_words(verdict)
    plain = None if psi is None else psi > PSI_LIMIT
    return MonitorResult(
        "prediction_mix", verdict, psi, PSI_LIMIT, window["rows"], message, f"PSI > {PSI_LIMIT}", plain
    )


def feature_shift(window: Mapping[str, Any]) -> MonitorResult:
    """Customer features, as a day's drift document judged them, corrected over the features.

    The plain rule is KS p < 0.01 of any feature: daily on ten, it has a 95 % chance of a false alarm in a month.
    """
    results = _results(window, "feature")
    p_values = [
        r["p_value"] for r in results if r["statistic_name"] == "kolmogorov_smirnov" and r["p_value"] is not None
    ]
    verdict = Verdict(window["groups"].get("feature", {"verdict": Verdict.ERROR})["verdict"])
    loud = [
        f"{r['column']} ({r['statistic_name']}, effect {r['effect']:.3g})" for r in results if r["verdict"] == "fail"
    ]
    message = "drifted: " + ", ".join(loud) if loud else _in_words(verdict)
    least = min(p_values, default=None)
    plain = None if least is None else least < KS_LIMIT
    return MonitorResult(
        "feature_shift", verdict, least, KS_LIMIT, window["rows"], message, f"any KS p < {KS_LIMIT}", plain
    )


def _results(window: Mapping[str, Any], group: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = window["groups"].get(group, {"results": []})["results"]
    return found


def _in_words(verdict: Verdict) -> str:
    return {Verdict.PASS: "quiet", Verdict.FAIL: "drifted"}.get(verdict, verdict.value.replace("_", " "))


def acts(found: float, act_at: float) -> Verdict:
    """A score at or above the limit fails."""
    return Verdict.FAIL if found >= act_at else Verdict.PASS


def _below(value: float, limit: float, standard_error: float) -> float:
    """Score against "the true value is at least `limit`", by the normal tail."""
    if standard_error <= 0:
        return MAX_SCORE if value < limit else 0.0
    return min(float(-norm.logcdf((value - limit) / standard_error)) / math.log(10), MAX_SCORE)


def by_chance(found: float) -> str:
    """The evidence in words."""
    if found < TICKET:
        return "within chance"
    return f"by chance in one of {10**found:,.0f} cases" if found < 9 else "by chance practically never"
