from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mlops_assets.drift.observed import independent_share
from mlops_assets.drift.profile import ReferenceProfile, Window, build_profile
from mlops_assets.drift.window import judge_window
from mlops_assets.spec import DriftSpec
from mlops_assets.verdict import Verdict
from tests.drift.simulate import alarms, at_most
from tests.drift.test_profile import LABELS, rows

SPEC = DriftSpec()
NO_FLOORS = DriftSpec(alpha=0.05, ks_effect=0, mmd_effect=0, share_effect=0, psi=1e-9, permutations=99, mmd_rows=50)


@pytest.fixture(scope="module")
def profile() -> ReferenceProfile:
    return build_profile(rows(1500), labels=LABELS)


def verdicts(profile: ReferenceProfile, window: Window) -> dict[str, Verdict]:
    return {name: group.verdict for name, group in judge_window(profile, window, SPEC).groups.items()}


def test_more_of_the_same_is_quiet(profile: ReferenceProfile) -> None:
    drift = judge_window(profile, rows(200, 1), SPEC)
    assert drift.verdict is Verdict.PASS
    assert drift.expected_run == 100
    assert drift.summary() == "feature: quiet; prediction: quiet; embedding: quiet"


@pytest.mark.slow
def test_each_group_alarms_on_its_own(profile: ReferenceProfile) -> None:
    quiet = rows(200, 1)
    spend = {**quiet.features, "spend/90d": np.asarray(quiet.features["spend/90d"]) + 1}
    moved = replace(quiet, features=spend)
    assert verdicts(profile, moved) == {"feature": "fail", "prediction": "pass", "embedding": "pass"}
    assert judge_window(profile, moved, SPEC).groups["feature"].drifted[0].column == "spend/90d"
    sure = replace(quiet, probabilities=np.eye(3)[[0] * 200])
    assert verdicts(profile, sure) == {"feature": "pass", "prediction": "fail", "embedding": "pass"}
    apart = replace(quiet, embeddings=np.asarray(quiet.embeddings) + 1)
    assert verdicts(profile, apart) == {"feature": "pass", "prediction": "pass", "embedding": "fail"}


def test_days_after_a_shift_are_quiet_against_their_own_kind_and_drift_against_old_and_new_mixed() -> None:
    def moved(n: int, seed: int) -> Window:
        window = rows(n, seed)
        return replace(window, features={**window.features, "spend/90d": window.features["spend/90d"] + 1})

    before, since = rows(180, 1).features, moved(120, 2).features
    mixed = build_profile(Window({name: np.concatenate([before[name], since[name]]) for name in since}))
    since_alone = build_profile(Window(since))
    days = [Window(moved(150, seed).features) for seed in range(10, 30)]
    assert {judge_window(since_alone, day, SPEC).groups["feature"].verdict for day in days} == {Verdict.PASS}
    assert {judge_window(mixed, day, SPEC).groups["feature"].verdict for day in days} == {Verdict.FAIL}


def test_labels_behind_the_joint_result_are_reported_but_not_counted_twice(profile: ReferenceProfile) -> None:
    group = judge_window(profile, rows(200, 1), SPEC).groups["prediction"]
    assert [r.statistic_name for r in group.results] == ["black_box_shift", "chi_squared", "psi"]
    assert [r.column for r in group.details] == [f"probability of {label}" for label in LABELS]


@pytest.mark.parametrize("n", [1, 5, 29])
def test_a_small_window_is_insufficient_data(profile: ReferenceProfile, n: int) -> None:
    assert set(verdicts(profile, rows(n, 1)).values()) == {Verdict.INSUFFICIENT_DATA}


def test_an_empty_window_is_insufficient_data(profile: ReferenceProfile) -> None:
    empty = Window(
        features={"spend/90d": np.array([]), "country": np.array([], dtype=object)},
        probabilities=np.empty((0, 3)),
        predicted=np.array([], dtype=object),
        embeddings=np.empty((0, 6)),
    )
    assert judge_window(profile, empty, SPEC).verdict is Verdict.INSUFFICIENT_DATA


def test_a_part_that_is_missing_is_an_error_that_names_it(profile: ReferenceProfile) -> None:
    quiet = rows(200, 1)
    without = replace(quiet, features={"country": quiet.features["country"]}, embeddings=None)
    drift = judge_window(profile, without, SPEC)
    assert {name: g.verdict.value for name, g in drift.groups.items()} == {
        "feature": "error",
        "prediction": "pass",
        "embedding": "error",
    }
    assert "the window has no spend/90d" in drift.summary()


def test_broken_values_are_an_error_that_names_them(profile: ReferenceProfile) -> None:
    quiet = rows(200, 1)
    text = replace(quiet, features={**quiet.features, "spend/90d": np.array(["much"] * 200)})
    assert "column spend/90d" in judge_window(profile, text, SPEC).summary()
    unfinished = replace(quiet, embeddings=np.full((200, 6), np.nan))
    assert "200 of 200 rows are not finite" in judge_window(profile, unfinished, SPEC).summary()


def test_a_column_of_nulls_drifts_in_its_missing_share(profile: ReferenceProfile) -> None:
    quiet = rows(200, 1)
    absent = replace(quiet, features={**quiet.features, "country": np.array([None] * 200, dtype=object)})
    group = judge_window(profile, absent, SPEC).groups["feature"]
    assert group.verdict is Verdict.FAIL
    assert group.drifted[0].statistic_name == "missing"


def test_infinite_values_are_ranked_not_refused(profile: ReferenceProfile) -> None:
    quiet = rows(200, 1)
    infinite = replace(quiet, features={**quiet.features, "spend/90d": np.full(200, np.inf)})
    assert verdicts(profile, infinite)["feature"] is Verdict.FAIL


def test_a_profile_with_nothing_to_judge_says_nothing() -> None:
    assert judge_window(ReferenceProfile(rows=10), Window(), SPEC).verdict is Verdict.INSUFFICIENT_DATA


@pytest.mark.slow
def test_quiet_windows_alarm_no_more_often_than_alpha_even_without_effect_floors() -> None:
    """All groups, columns and statistics together, a fresh reference each time."""

    def judge(rng: np.random.Generator) -> bool:
        seed = int(rng.integers(1 << 30))
        profile = build_profile(rows(400, seed), labels=LABELS, embedding_rows=50)
        return judge_window(profile, rows(150, seed + 1), NO_FLOORS, seed).verdict is Verdict.FAIL

    assert alarms(judge, 150) <= at_most(0.05, 150)


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 4, 12, 100])
def test_customers_who_write_often_raise_no_false_alarm(most: int) -> None:
    """Five features of each customer, of one to `most` messages a day; without the discount half of such days alarm."""

    def day(rng: np.random.Generator, messages: int) -> Window:
        often = rng.integers(1, most + 1, size=messages)
        often = often[: np.searchsorted(np.cumsum(often), messages) + 1]
        values = np.repeat(rng.normal(size=(len(often), 5)), often, axis=0)
        who = np.repeat(np.arange(len(often)), often).astype(str).tolist()
        named = {f"feature {number}": column for number, column in enumerate(values.T)}
        return Window(named, independent=dict.fromkeys(named, independent_share(who)))

    def judge(rng: np.random.Generator) -> bool:
        profile = build_profile(day(rng, 300))
        return (
            judge_window(profile, day(rng, 200), DriftSpec(alpha=0.05, ks_effect=0, psi=1e-9)).verdict is Verdict.FAIL
        )

    assert alarms(judge, 200) <= at_most(0.05, 200)


@pytest.mark.slow
@pytest.mark.parametrize(("anonymous", "newcomers"), [(140, 0), (0, 1), (140, 1)])
def test_messages_without_features_raise_no_false_alarm_beside_customers_who_write_often(
    anonymous: int, newcomers: int
) -> None:
    """So many of nobody known a day, and of new customers with 60 messages each; discounted as one, they did."""
    names = [f"feature {number}" for number in range(3)]

    def day(rng: np.random.Generator, days: int) -> Window:
        often = rng.integers(1, 20, size=8 * days)
        new, nobody = rng.poisson(newcomers * days), rng.poisson(anonymous * days)
        values = np.repeat(rng.normal(size=(len(often), 3)), often, axis=0)
        absent = np.full((60 * new + nobody, 3), np.nan)
        known, unknown = np.repeat(np.arange(len(often)), often), np.repeat(np.arange(new), 60)
        shares = independent_share(known.astype(str).tolist())
        of_missing = independent_share([*unknown.astype(str).tolist(), *[None] * nobody])
        return Window(
            dict(zip(names, np.concatenate([values, absent]).T, strict=True)),
            independent=dict.fromkeys(names, shares),
            independent_missing=dict.fromkeys(names, of_missing),
        )

    def judge(rng: np.random.Generator) -> bool:
        spec = DriftSpec(alpha=0.05, ks_effect=0, psi=1e-9, share_effect=0)
        return judge_window(build_profile(day(rng, 7)), day(rng, 1), spec).verdict is Verdict.FAIL

    assert alarms(judge, 200) <= at_most(0.05, 200)


def test_few_customers_with_many_messages_are_enough_rows_that_tell_little() -> None:
    named = {"spend": np.arange(300.0)}
    profile = build_profile(Window(named))
    window = Window({"spend": np.repeat([10.0, 290.0, np.nan], 50)}, independent={"spend": 3 / 150})
    results = judge_window(profile, window, SPEC).groups["feature"].results
    assert [result.verdict for result in results] == [Verdict.PASS] * 3
    assert [result.n_current for result in results] == [100, 100, 150]


@pytest.mark.parametrize("messages", [49, 98, 103])
def test_a_day_on_which_one_customer_wrote_all_is_judged_however_its_discount_rounds(messages: int) -> None:
    profile = build_profile(Window({"spend": np.arange(300.0)}))
    independent = {"spend": independent_share(["a"] * messages)}
    window = Window({"spend": np.full(messages, 150.0)}, independent=independent)
    assert [result.verdict for result in judge_window(profile, window, SPEC).results] == [Verdict.PASS] * 3


def test_one_missing_value_beside_two_customers_who_sent_all_others_is_one_of_three_hundred() -> None:
    profile = build_profile(Window({"spend": np.random.default_rng(0).normal(size=5000)}))
    spend, who = np.repeat([0.3, -0.2, np.nan], [150, 149, 1]), ["a"] * 150 + ["b"] * 149 + [None]
    drift = judge_window(profile, Window({"spend": spend}, independent={"spend": independent_share(who)}), SPEC)
    gone = drift.groups["feature"].results[-1]
    assert (gone.statistic_name, gone.effect, drift.verdict) == ("missing", 1 / 300, Verdict.PASS)


def test_broken_values_beside_a_drift_hide_it_not_and_are_told(profile: ReferenceProfile) -> None:
    quiet = rows(200, 1)
    spend = {**quiet.features, "spend/90d": np.asarray(quiet.features["spend/90d"]) + 3}
    vectors = np.array(quiet.embeddings)
    vectors[0, 0] = np.nan
    drift = judge_window(profile, replace(quiet, features=spend, embeddings=vectors), SPEC)
    assert drift.verdict is Verdict.FAIL
    assert drift.groups["embedding"].verdict is Verdict.ERROR
    assert "drift in spend/90d" in drift.summary()
    assert "embedding: error" in drift.summary()


@pytest.mark.slow
def test_over_many_days_against_one_reference_alarms_are_as_rare_as_stated_but_come_in_runs() -> None:
    """Small references, as large as a window, so that a reference that is off by chance shows itself."""
    references, days, alpha = 120, 20, NO_FLOORS.alpha

    def quiet(rng: np.random.Generator) -> Window:
        return Window(
            {"spend": rng.exponential(size=60), "age": rng.normal(size=60), "shop": rng.choice(["a", "b"], 60)}
        )

    def false_alarms(rng: np.random.Generator) -> int:
        profile = build_profile(quiet(rng))
        return sum(judge_window(profile, quiet(rng), NO_FLOORS).verdict is Verdict.FAIL for _ in range(days))

    counts = np.array([false_alarms(rng) for rng in np.random.default_rng(3).spawn(references)])
    assert (counts > 0).sum() <= at_most(1 - (1 - alpha) ** days, references)
    rate = counts.mean() / days
    assert rate <= alpha
    assert counts.var() > 1.5 * days * rate * (1 - rate)  # independent windows would give about 1
