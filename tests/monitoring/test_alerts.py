"""What people are told: one message per cause, once, more urgent only when it is, and its end."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.monitoring.alerts import Finding, OpenAlert, Severity, recall, remember, review
from mlops_assets.verdict import Verdict

NOW, LATER = "2026-05-11T00:00:10+00:00", "2026-05-12T00:00:10+00:00"
P, F, N, E = Verdict.PASS, Verdict.FAIL, Verdict.INSUFFICIENT_DATA, Verdict.ERROR
PAGE, TICKET, RESOLVED = Severity.PAGE, Severity.TICKET, Severity.RESOLVED


def finding(check: str, verdict: Verdict = F, severity: Severity = TICKET) -> Finding:
    asset = check.partition(":")[0]
    return Finding(check, verdict, severity, f"{check} says so", "2026-05-10", f"http://ui/assets/{asset}")


DRIFT = [finding(f"m/{asset}:quiet") for asset in ("feature_drift", "prediction_drift", "embedding_drift")]


def test_checks_of_one_cause_are_one_alert_that_says_all() -> None:
    (told,), opened = review("m", DRIFT, [], {"drift": "retrain requested: drift on two days"}, now=NOW)
    assert (told.title, told.severity) == ("m: the traffic drifted", TICKET)
    assert told.body.splitlines() == [
        "- m/embedding_drift:quiet (2026-05-10): m/embedding_drift:quiet says so",
        "- m/feature_drift:quiet (2026-05-10): m/feature_drift:quiet says so",
        "- m/prediction_drift:quiet (2026-05-10): m/prediction_drift:quiet says so",
        f"Since {NOW}.",
        "Done about it: retrain requested: drift on two days.",
        "Look at http://ui/assets/m/embedding_drift",
        "Look at http://ui/assets/m/feature_drift",
        "Look at http://ui/assets/m/prediction_drift",
    ]
    assert review("m", DRIFT, opened, {}, now=LATER)[0] == []


def test_a_drift_that_costs_expected_performance_becomes_a_page() -> None:
    _, opened = review("m", DRIFT, [], {}, now=NOW)
    costly = finding("m/quality:estimated_f1", severity=PAGE)
    (told,), opened = review("m", [*DRIFT, costly], opened, {}, now=LATER)
    assert told.severity is PAGE
    assert told.body.startswith("- m/quality:estimated_f1")
    assert f"Since {NOW}." in told.body
    assert review("m", DRIFT, opened, {}, now=LATER)[0] == []  # it does not become less urgent, and not new


def test_an_alert_is_over_when_all_its_checks_pass_and_that_is_told_once() -> None:
    _, opened = review("m", DRIFT, [], {}, now=NOW)
    passed = [finding(each.check, P) for each in DRIFT]
    still, opened = review("m", [*passed[:2], DRIFT[2]], opened, {}, now=LATER)
    assert still == []
    (told,), opened = review("m", passed, opened, {}, now=LATER)
    assert (told.title, told.severity) == ("m: the traffic drifted: over", RESOLVED)
    assert f"Open from {NOW} to {LATER}" in told.body
    assert opened == []
    assert review("m", passed, opened, {}, now=LATER) == ([], [])


def test_what_cannot_say_opens_nothing_and_ends_nothing_but_what_broke_is_told() -> None:
    assert review("m", [finding("m/quality:f1", N)], [], {}, now=NOW) == ([], [])
    _, opened = review("m", [finding("m/quality:f1")], [], {}, now=NOW)
    assert review("m", [finding("m/quality:f1", N)], opened, {}, now=LATER) == ([], opened)
    assert review("m", [], opened, {}, now=LATER) == ([], opened)  # being evaluated
    assert review("m", [finding("m/quality:f1", E)], [], {}, now=NOW)[0][0].severity is TICKET


def test_causes_are_apart_and_an_unknown_check_is_a_cause_of_its_own() -> None:
    found = [
        finding("m/quality:f1", severity=PAGE),
        finding("m/predictions:latency", severity=PAGE),
        finding("m/validated_messages:contract", severity=PAGE),
        finding("m/evaluation:gate", severity=PAGE),
    ]
    titles = [told.title for told in review("m", found, [], {}, now=NOW)[0]]
    assert titles == [
        "m: answers are worse than promised",
        "m: serving suffers",
        "m: data is broken",
        "m: check gate of evaluation fails",
    ]


def test_checks_that_say_the_same_are_one_line() -> None:
    same = [replace(each, message="drift in text_length") for each in DRIFT]
    (told,), _ = review("m", same, [], {}, now=NOW)
    first = (
        "- m/embedding_drift:quiet, m/feature_drift:quiet, m/prediction_drift:quiet (2026-05-10): drift in text_length"
    )
    assert told.body.splitlines()[0] == first


def test_nothing_done_is_said_too() -> None:
    assert "Done about it: nothing." in review("m", DRIFT, [], {}, now=NOW)[0][0].body


some_findings = st.lists(
    st.builds(
        finding,
        st.sampled_from(["m/quality:f1", "m/quality:correctness", "m/feature_drift:quiet", "m/evaluation:gate"]),
        st.sampled_from(list(Verdict)),
        st.sampled_from([PAGE, TICKET]),
    ),
    max_size=5,
    unique_by=lambda each: each.check,
)


@pytest.mark.slow
@given(st.lists(some_findings, max_size=12))
def test_whatever_comes_every_alert_opens_once_and_ends_once(looks: list[list[Finding]]) -> None:
    opened: list[OpenAlert] = []
    for number, findings in enumerate(looks):
        before = {alert.cause for alert in opened}
        told, opened = review("m", findings, recall(json.loads(json.dumps(remember(opened)))), {}, now=str(number))
        after = {alert.cause for alert in opened}
        assert len(told) <= len(before | after)
        assert sum(message.severity is RESOLVED for message in told) == len(before - after)
        assert sum(message.severity is not RESOLVED for message in told) >= len(after - before)
        assert after >= {each.cause for each in findings if each.opens}
