"""What a person wants to know of each column: did it drift, how strongly, what changed, what does it look like.

Orders columns by what matters most. Judges nothing: verdicts come from the engine, and `strength` only puts
effects of different units on one scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from mlops_assets.drift import missing, mmd, psi, unseen
from mlops_assets.drift.columns import to_categories, to_numbers
from mlops_assets.drift.profile import ReferenceProfile, Window
from mlops_assets.drift.result import DriftInputError, DriftResult
from mlops_assets.drift.window import WindowDrift, effect_floor
from mlops_assets.report.shapes import Mix, Shape, of_categories, of_numbers
from mlops_assets.report.words import number, percent
from mlops_assets.spec import DriftSpec
from mlops_assets.verdict import Verdict, worst

SHOWN = {("prediction", "*"): "softmax outputs", ("prediction", "predicted"): "predicted label"}
SHOWN |= {("embedding", "*"): "embeddings"}
_FIRST = (Verdict.ERROR, Verdict.FAIL, Verdict.INSUFFICIENT_DATA, Verdict.PASS)
_SQUARES = (psi.NAME, mmd.NAME)


@dataclass(frozen=True)
class Story:
    """One column.

    Attributes:
        column: its name as people know it.
        strength: its largest effect as a multiple of the limit from which an effect counts; None without any.
        lead: the result that matters most.
        change: what changed, in words.
        shape: what it looks like before and now; None where that cannot be drawn.
        missing: share of missing values before and now; None where there are none to speak of.
    """

    column: str
    verdict: Verdict
    strength: float | None
    lead: DriftResult
    results: tuple[DriftResult, ...]
    change: str = ""
    shape: Shape | None = None
    missing: tuple[float, float] | None = None


def strength(statistic_name: str, effect: float | None, spec: DriftSpec) -> float | None:
    """An effect as a multiple of its limit, so that different statistics can be ranked and drawn together.

    PSI and MMD^2 grow with the square of a shift, so the root is taken of theirs.

    >>> strength("kolmogorov_smirnov", 0.4, DriftSpec()), strength("psi", 0.8, DriftSpec())
    (2.0, 2.0)
    """
    limit = effect_floor(statistic_name, spec)
    if effect is None or not limit:
        return None
    ratio = max(effect, 0.0) / limit
    return sqrt(ratio) if statistic_name in _SQUARES else ratio


def tell(profile: ReferenceProfile, window: Window, drift: WindowDrift, spec: DriftSpec) -> tuple[Story, ...]:
    """The stories of all columns: what could not be said first, then what drifted, each strongest first."""
    columns: dict[tuple[str, str], list[DriftResult]] = {}
    for group in drift.groups.values():
        for result in group.results:
            columns.setdefault((group.name, result.column), []).append(result)
    stories = [_story(group, tuple(results), spec) for (group, _), results in columns.items()]
    details = {name: group.details for name, group in drift.groups.items()}
    told = [_drawn(story, k, profile, window, details[k[0]]) for k, story in zip(columns, stories, strict=True)]
    return tuple(sorted(told, key=lambda story: (_FIRST.index(story.verdict), -(story.strength or 0.0), story.column)))


def shown_name(group: str, column: str) -> str:
    """What people call a column of a group."""
    return SHOWN.get((group, column), column)


def _story(group: str, results: tuple[DriftResult, ...], spec: DriftSpec) -> Story:
    def weight(result: DriftResult) -> tuple[int, float]:
        return -_FIRST.index(result.verdict), strength(result.statistic_name, result.effect, spec) or 0.0

    lead = max(results, key=weight)
    strengths = [strength(result.statistic_name, result.effect, spec) for result in results]
    return Story(
        column=shown_name(group, lead.column),
        verdict=worst(result.verdict for result in results),
        strength=max((s for s in strengths if s is not None), default=None),
        lead=lead,
        results=results,
    )


def _drawn(
    story: Story, key: tuple[str, str], profile: ReferenceProfile, window: Window, details: Sequence[DriftResult]
) -> Story:
    """The story with what changed and its shape; one whose values cannot be read keeps its message."""
    if story.verdict is Verdict.ERROR:
        return replace(story, change=story.lead.message)
    try:
        return _with_shape(story, key, profile, window, details)
    except DriftInputError as error:
        return replace(story, change=str(error))


def _with_shape(
    story: Story, key: tuple[str, str], profile: ReferenceProfile, window: Window, details: Sequence[DriftResult]
) -> Story:
    group, column = key
    if group == "prediction" and column == "*":
        return _with_outputs(story, profile, window, details)
    if group == "prediction" and profile.predicted is not None and window.predicted is not None:
        counts = to_categories(window.predicted, column).counts
        return _with_mix(story, of_categories(profile.predicted, counts), None)
    if column in profile.numeric:
        reference, numbers = profile.numeric[column], to_numbers(window.features[column], column)
        shares = _missing_shares((reference.missing, len(reference.values)), (numbers.missing, len(numbers.values)))
        shape = of_numbers(reference.values, numbers.values)
        if isinstance(shape, Mix):
            return _with_mix(story, shape, shares)
        return replace(
            story, shape=shape, missing=shares, change=_change(story, _moved(reference.values, numbers.values), shares)
        )
    if column in profile.categorical:
        before, now = profile.categorical[column], to_categories(window.features[column], column)
        shares = _missing_shares((before.missing, sum(before.counts.values())), (now.missing, now.rows))
        return _with_mix(story, of_categories(before.counts, now.counts), shares)
    return replace(story, change=story.lead.message)


def _with_outputs(story: Story, profile: ReferenceProfile, window: Window, per_label: Sequence[DriftResult]) -> Story:
    """The probability that moved most stands for all of them."""
    if profile.probabilities is None or window.probabilities is None or not per_label:
        return replace(story, change=story.lead.message)
    most = max(range(len(per_label)), key=lambda label: per_label[label].effect or 0.0)
    before, now = profile.probabilities[most], np.asarray(window.probabilities, dtype=np.float64)[:, most]
    said = f"{per_label[most].column}: {_moved(before, now)}"
    return replace(story, shape=of_numbers(before, now), change=said)


def _with_mix(story: Story, mix: Mix | None, missing_shares: tuple[float, float] | None) -> Story:
    said = ""
    if mix is not None:
        most = max(mix.bars, key=lambda bar: abs(bar.now - bar.before))
        said = f"{most.name}: {percent(most.before)} → {percent(most.now)}"
    return replace(story, shape=mix, missing=missing_shares, change=_change(story, said, missing_shares))


def _change(story: Story, moved: str, missing_shares: tuple[float, float] | None) -> str:
    if story.verdict is Verdict.INSUFFICIENT_DATA:
        return story.lead.message
    if story.lead.statistic_name == missing.NAME and story.verdict is Verdict.FAIL and missing_shares:
        return f"missing: {percent(missing_shares[0])} → {percent(missing_shares[1])}"
    fresh = next(
        (r.effect for r in story.results if r.statistic_name == unseen.NAME and r.verdict is Verdict.FAIL), None
    )
    return moved if fresh is None else f"{moved}; {percent(fresh)} in categories never seen before"


def _moved(before: np.ndarray, now: np.ndarray) -> str:
    """The median before and now, or the mean where the median stays."""
    if not len(before) or not len(now):
        return ""
    medians = float(np.median(before)), float(np.median(now))
    if medians[0] != medians[1]:
        return f"median: {number(medians[0])} → {number(medians[1])}"
    return f"mean: {number(float(np.mean(before)))} → {number(float(np.mean(now)))}"


def _missing_shares(before: tuple[int, int], now: tuple[int, int]) -> tuple[float, float] | None:
    """Shares of (missing, there) on both sides; None where nothing is missing."""
    if not before[0] and not now[0]:
        return None
    return before[0] / max(sum(before), 1), now[0] / max(sum(now), 1)
