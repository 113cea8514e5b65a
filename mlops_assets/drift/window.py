"""Judges one window against a reference profile: features, predictions and embeddings, each with its verdict.

Draws on every statistic of this package and corrects over all of them; knows nothing of days, assets or
what is done about a drift.

Error rate: when nothing has changed, a window alarms with probability at most `DriftSpec.alpha`. Each group
gets an equal part of it (Bonferroni), and holds it over its columns and statistics (Benjamini-Hochberg, which
controls the chance of any false alarm when all nulls hold). The effect floors make alarms rarer still.

Over time: windows that are judged by one reference are independent given that reference, not as such; a reference
that is off by chance alarms again and again. What holds is an average over references, and it holds however the
windows depend on them: at most alpha false alarms a window; at least 1 / alpha windows, in expectation, to the
first one; no alarm in d windows with probability (1 - alpha)^d or more (both by Jensen's inequality, since given
the reference the wait is geometric). What does not hold is that false alarms come singly: with a reference no
larger than a window their count varies more than twice as much as that of independent windows, with one of twenty
times the size hardly more. A new reference ends such a run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mlops_assets.drift import black_box_shift, chi_squared, kolmogorov_smirnov, mmd, psi
from mlops_assets.drift import missing as missing_share
from mlops_assets.drift import unseen as unseen_share
from mlops_assets.drift.correction import benjamini_hochberg
from mlops_assets.drift.counts import CountedWindow, WindowCounts
from mlops_assets.drift.frozen_bins import judge_counts as judge_binned
from mlops_assets.drift.measured import Measured, MeasuredWindow
from mlops_assets.drift.profile import CategoricalReference, ReferenceProfile, Window
from mlops_assets.drift.result import DriftInputError, DriftResult, Limits, broken, insufficient, too_small
from mlops_assets.spec import DriftSpec
from mlops_assets.verdict import Verdict, joint

Results = tuple[DriftResult, ...]
_FLOORS: dict[str, Callable[[DriftSpec], float]] = {
    kolmogorov_smirnov.NAME: lambda spec: spec.ks_effect,
    chi_squared.NAME: lambda spec: spec.ks_effect,
    black_box_shift.NAME: lambda spec: spec.ks_effect,
    psi.NAME: lambda spec: spec.psi,
    missing_share.NAME: lambda spec: spec.share_effect,
    unseen_share.NAME: lambda spec: spec.share_effect,
    mmd.NAME: lambda spec: spec.mmd_effect,
}


@dataclass(frozen=True)
class GroupDrift:
    """What one group of statistics says.

    Attributes:
        name: ``feature``, ``prediction`` or ``embedding``.
        verdict: of the results that count together; a drift that one shows stands, whatever broke beside it.
        alpha: the group's part of the window's error rate.
        results: the results that count, their verdicts corrected over the group.
        details: results behind those, such as one per label; reported, not counted again.
    """

    name: str
    verdict: Verdict
    alpha: float
    results: Results
    details: Results = ()

    @property
    def drifted(self) -> Results:
        """The results that alarm, largest effect first."""
        failed = (result for result in self.results if result.verdict is Verdict.FAIL)
        return tuple(sorted(failed, key=lambda result: -(result.effect or 0.0)))


@dataclass(frozen=True)
class WindowDrift:
    """What a window says.

    Attributes:
        verdict: of the groups together, likewise.
        groups: by name; those that the profile knows.
        rows: rows of the window.
        expected_run: quiet windows to the first false alarm, at least, in expectation over references.
    """

    verdict: Verdict
    groups: Mapping[str, GroupDrift]
    rows: int
    expected_run: float

    @property
    def results(self) -> list[DriftResult]:
        """All results that count, group by group."""
        return [result for group in self.groups.values() for result in group.results]

    def summary(self) -> str:
        """One line for people."""
        return "; ".join(f"{group.name}: {_describe(group)}" for group in self.groups.values())


def effect_floor(statistic_name: str, spec: DriftSpec) -> float | None:
    """The effect from which a statistic counts; None for one that has no limit."""
    return _FLOORS[statistic_name](spec) if statistic_name in _FLOORS else None


def judge_window(profile: ReferenceProfile, window: Window, spec: DriftSpec, seed: int = 0) -> WindowDrift:
    """Compare a window with its reference.

    A part that the profile has and the window lacks is an ``ERROR`` of its group; so are values that cannot
    be compared. Same input and seed, same answer.

    >>> from mlops_assets.drift.profile import build_profile
    >>> rng = np.random.default_rng(0)
    >>> profile = build_profile(Window(features={"spend": rng.normal(size=1000)}))
    >>> judge_window(profile, Window(features={"spend": rng.normal(2, 1, size=200)}), DriftSpec()).verdict.value
    'fail'
    """
    return judge(profile, MeasuredWindow(profile, window), spec, seed)


def judge_counts(profile: ReferenceProfile, counts: WindowCounts, spec: DriftSpec, seed: int = 0) -> WindowDrift:
    """The same for a window that was counted in parts, however it was split."""
    return judge(profile, CountedWindow(profile, counts), spec, seed)


def judge(profile: ReferenceProfile, window: Measured, spec: DriftSpec, seed: int) -> WindowDrift:
    """Judge whatever can give a window's figures."""
    judges = dict(_judges(profile, window, spec, seed))
    alpha = spec.alpha / max(len(judges), 1)
    limits = Limits(alpha=alpha, min_rows=spec.min_rows)
    groups = {name: judge(limits) for name, judge in judges.items()}
    return WindowDrift(joint(group.verdict for group in groups.values()), groups, window.rows, 1 / spec.alpha)


def _judges(
    profile: ReferenceProfile, window: Measured, spec: DriftSpec, seed: int
) -> Iterator[tuple[str, Callable[[Limits], GroupDrift]]]:
    """The groups that this profile can judge."""
    if profile.numeric or profile.categorical:
        yield "feature", lambda limits: _features(profile, window, spec, limits)
    if profile.probabilities is not None or profile.predicted is not None:
        yield "prediction", lambda limits: _predictions(profile, window, spec, limits)
    if profile.embeddings is not None:
        yield "embedding", lambda limits: _embeddings(profile, window, spec, limits, seed)


def _features(profile: ReferenceProfile, window: Measured, spec: DriftSpec, limits: Limits) -> GroupDrift:
    compared = [
        partial(
            _guarded, kolmogorov_smirnov.NAME, name, len(c.values), partial(_numeric, profile, window, spec, limits)
        )
        for name, c in profile.numeric.items()
    ]
    compared += [
        partial(_guarded, chi_squared.NAME, name, sum(c.counts.values()), partial(_mix, c, window, spec, limits))
        for name, c in profile.categorical.items()
    ]
    # Sorting and merging hold no lock, so a large window uses all cores.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = [result for column in pool.map(lambda compare: compare(), compared) for result in column]
    return judge_group("feature", results, limits)


def _numeric(profile: ReferenceProfile, window: Measured, spec: DriftSpec, limits: Limits, name: str) -> Results:
    """Rows that repeat one entity's value count for less: for the independent ones that would tell as much.

    Enough rows there must be all the same; what they tell less is told by the p-values. A share of missing values
    varies at most as if all rows were repeated as those that are there, or as those that are missing on either side.
    """
    reference, figures = profile.numeric[name], window.numeric(name)
    shares = (profile.independent.get(name, 1.0), window.independent.get(name, 1.0))
    of_missing = min(profile.independent_missing.get(name, 1.0), window.independent_missing.get(name, 1.0))
    there, absent = (len(reference.values), figures.rows), (reference.missing, figures.missing)
    n, m = _discounted(there, shares)
    binned = (np.float64(shares[0]) * reference.counts, np.float64(shares[1]) * figures.bins)
    small = too_small(*there, limits)
    told_by_p = limits if small else replace(limits, min_rows=1)
    compared = (
        insufficient(kolmogorov_smirnov.NAME, name, *there, limits)
        if small
        else kolmogorov_smirnov.from_distance(figures.distance, n, m, replace(told_by_p, effect=spec.ks_effect), name),
        judge_binned(psi.DIVERGENCE, *binned, replace(told_by_p, effect=spec.psi), name),
    )
    rows = ((absent[0], there[0]), (absent[1], there[1]))
    return (
        *(replace(result, n_reference=there[0], n_current=there[1]) for result in compared),
        _missing(*rows, spec, limits, name, (min(shares[0], of_missing), min(shares[1], of_missing))),
    )


def _discounted(rows: tuple[int, int], shares: tuple[float, float]) -> tuple[int, int]:
    """At least one where there is one."""
    reference, current = (max(min(1, count), round(share * count)) for count, share in zip(rows, shares, strict=True))
    return reference, current


def _mix(reference: CategoricalReference, window: Measured, spec: DriftSpec, limits: Limits, name: str) -> Results:
    current = window.categorical(name)
    shares = replace(limits, effect=spec.share_effect)
    there = sum(reference.counts.values())
    return (
        *_label_mix(reference.counts, current.counts, spec, limits, name),
        unseen_share.unseen(reference.counts, current.counts, shares, column=name),
        _missing((reference.missing, there), (current.missing, current.rows), spec, limits, name),
    )


def _missing(
    reference: tuple[int, int],
    current: tuple[int, int],
    spec: DriftSpec,
    limits: Limits,
    name: str,
    independent: tuple[float, float] = (1.0, 1.0),
) -> DriftResult:
    """Compare (missing, there) of reference and window."""
    shares = replace(limits, effect=spec.share_effect)
    rows = ((reference[0], sum(reference)), (current[0], sum(current)))
    return missing_share.missing(*rows, shares, column=name, independent=independent)


def _label_mix(
    reference: Mapping[str, int], current: Mapping[str, int], spec: DriftSpec, limits: Limits, name: str
) -> Results:
    by_distance = replace(limits, effect=spec.ks_effect)
    before, now = chi_squared.align(reference, current)
    return (
        chi_squared.chi_squared(reference, current, by_distance, column=name),
        judge_binned(psi.DIVERGENCE, before, now, replace(limits, effect=spec.psi), name),
    )


def _predictions(profile: ReferenceProfile, window: Measured, spec: DriftSpec, limits: Limits) -> GroupDrift:
    results: list[DriftResult] = []
    details: Results = ()
    if (reference := profile.probabilities) is not None:
        n = reference.shape[1]
        by_distance = replace(limits, effect=spec.ks_effect)

        def outputs(_: str) -> Results:
            distances, m = window.softmax()
            return black_box_shift.from_distances(distances, n, m, profile.labels, by_distance)

        joint, *per_label = _guarded(black_box_shift.NAME, "*", n, outputs)
        results.append(joint)
        details = tuple(per_label)
    if (before := profile.predicted) is not None:

        def mix(name: str) -> Results:
            return _label_mix(before, window.predicted().counts, spec, limits, name)

        results += _guarded(chi_squared.NAME, "predicted", sum(before.values()), mix)
    return judge_group("prediction", results, limits, details)


def _embeddings(profile: ReferenceProfile, window: Measured, spec: DriftSpec, limits: Limits, seed: int) -> GroupDrift:
    reference = np.asarray(profile.embeddings)
    by_mmd = replace(limits, effect=spec.mmd_effect)

    def compare(name: str) -> Results:
        current = window.embeddings(spec.mmd_rows, seed)
        return (mmd.mmd(reference, current, by_mmd, column=name, permutations=spec.permutations, seed=seed),)

    return judge_group("embedding", _guarded(mmd.NAME, "*", len(reference), compare), limits)


def _guarded(statistic: str, column: str, n_reference: int, compare: Callable[[str], Results]) -> Results:
    """The comparison of one column, or one result that says why there is none."""
    try:
        return compare(column)
    except DriftInputError as error:
        return (broken(statistic, column, n_reference, 0, str(error)),)


def judge_group(name: str, results: Sequence[DriftResult], limits: Limits, details: Results = ()) -> GroupDrift:
    """One group's verdict, corrected over its results: a column that alarmed on its own is quiet if that says so."""
    adjusted = iter(benjamini_hochberg([r.p_value for r in results if r.p_value is not None]))
    corrected = tuple(
        result if result.p_value is None else _corrected(result, next(adjusted), limits) for result in results
    )
    return GroupDrift(name, joint(result.verdict for result in corrected), limits.alpha, corrected, details)


def _corrected(result: DriftResult, adjusted: float, limits: Limits) -> DriftResult:
    if result.verdict is Verdict.FAIL and adjusted > limits.alpha:
        return result.with_verdict(Verdict.PASS, f"not significant after correction (adjusted p {adjusted:.3g})")
    return result


def _describe(group: GroupDrift) -> str:
    if group.drifted:
        first = group.drifted[0]
        found = f"drift in {first.column} ({first.statistic_name} {first.statistic:.3g}, p {first.p_value:.2g})"
        broke = _messages(group, Verdict.ERROR)
        return f"{found}; error: {broke}" if broke else found
    return "quiet" if group.verdict is Verdict.PASS else f"{group.verdict.value}: {_messages(group, group.verdict)}"


def _messages(group: GroupDrift, verdict: Verdict) -> str:
    return "; ".join(result.message for result in group.results if result.verdict is verdict and result.message)
