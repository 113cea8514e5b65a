"""The comparison of served and offline values, on given sides."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.resources.feast_skew import compare
from mlops_assets.resources.feast_types import OnlineFeatures
from mlops_assets.verdict import Verdict

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
FEATURES = ("orders_90d", "spend_90d")


def served(customer: str, orders: float | None, event: datetime | None = NOON) -> OnlineFeatures:
    return OnlineFeatures(customer, event is not None, event, {"orders_90d": orders, "spend_90d": 1.0})


def offline(orders: float | None) -> dict[str, float | None]:
    return {"orders_90d": orders, "spend_90d": 1.0}


def test_equal_sides_pass() -> None:
    report = compare(NOON, FEATURES, [served("a", 2.0)], [offline(2.0)])
    assert (report.verdict, report.compared) == (Verdict.PASS, 1)


def test_a_mismatch_names_customer_feature_and_both_values() -> None:
    report = compare(NOON, FEATURES, [served("a", 2.0), served("b", 3.0)], [offline(2.0), offline(4.0)])
    assert report.verdict is Verdict.FAIL
    (mismatch,) = report.mismatches
    assert (mismatch.customer_id, mismatch.feature, mismatch.online, mismatch.offline) == ("b", "orders_90d", 3.0, 4.0)
    assert report.message.endswith("such as orders_90d: 3.0 online, 4.0 offline")  # alerts and logs repeat it


def test_a_value_on_one_side_only_is_a_mismatch_and_null_equals_nan() -> None:
    assert compare(NOON, FEATURES, [served("a", None)], [offline(2.0)]).mismatched_customers == ("a",)
    assert compare(NOON, FEATURES, [served("a", None)], [offline(float("nan"))]).mismatches == ()


def test_nobody_known_is_insufficient_data_not_a_pass() -> None:
    nobody = OnlineFeatures("a", False, None, dict.fromkeys(FEATURES))
    report = compare(NOON, FEATURES, [nobody], [dict.fromkeys(FEATURES)])
    assert (report.verdict, report.compared) == (Verdict.INSUFFICIENT_DATA, 0)
    assert compare(NOON, FEATURES, [], []).verdict is Verdict.INSUFFICIENT_DATA


def test_a_value_pushed_after_the_moment_cannot_be_judged_at_it() -> None:
    report = compare(NOON, FEATURES, [served("a", 9.0, NOON + timedelta(seconds=1))], [offline(2.0)])
    assert (report.newer, report.compared, report.mismatches) == (1, 0, ())


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=30))
def test_exactly_the_planted_mismatches_are_found(customers: list[tuple[float, bool]]) -> None:
    online = [served(str(i), value + planted) for i, (value, planted) in enumerate(customers)]
    report = compare(NOON, FEATURES, online, [offline(value) for value, _ in customers])
    assert {m.customer_id for m in report.mismatches} == {str(i) for i, (_, planted) in enumerate(customers) if planted}
