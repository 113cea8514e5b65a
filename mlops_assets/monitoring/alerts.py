"""From failing checks to the few messages that people get: one per cause, once, with an end.

Checks of one cause are one alert, as urgent as its most urgent check; it is told when it opens, when it becomes
more urgent, and when it is over. It remembers what was told in a plain document that the caller keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from mlops_assets.verdict import Verdict


class Severity(StrEnum):
    """How urgent it is: a page wakes somebody, a ticket waits until morning."""

    PAGE = "page"
    TICKET = "ticket"
    RESOLVED = "resolved"


# What a failing check is a sign of; any other check is a cause of its own.
CAUSES = {
    "quiet": "drift",
    "prediction_mix": "drift",
    "feature_shift": "drift",
    "estimated_f1": "drift",
    "f1": "quality",
    "correctness": "quality",
    "contract": "data",
    "readable": "data",
    "missing_values": "data",
    "served_equals_offline": "data",
    "latency": "serving",
    "throughput": "serving",
    "processor": "serving",
    "decided": "approval",
    "artefact": "artefact",
    "helps": "retrain",
}
_TITLES = {
    "drift": "the traffic drifted",
    "quality": "answers are worse than promised",
    "data": "data is broken",
    "serving": "serving suffers",
    "approval": "a version waits for a person",
    "artefact": "a version is refused",
    "retrain": "retraining does not help",
}


@dataclass(frozen=True)
class Finding:
    """What one check says now.

    Attributes:
        check: ``asset:check``.
        window: the window it speaks of, in words; empty where it has none.
        message: what it found, and how sure that is.
        url: where to look.
    """

    check: str
    verdict: Verdict
    severity: Severity
    message: str
    window: str
    url: str

    @property
    def cause(self) -> str:
        return CAUSES.get(self.check.rpartition(":")[2], self.check)

    @property
    def opens(self) -> bool:
        """Whether it calls for somebody: too little data does not, a check that broke does."""
        return self.verdict in (Verdict.FAIL, Verdict.ERROR)


@dataclass(frozen=True)
class OpenAlert:
    """An alert that was told and is not over: its cause, urgency, when it was opened (ISO), and its checks."""

    cause: str
    severity: Severity
    since: str
    checks: tuple[str, ...]


@dataclass(frozen=True)
class Message:
    """What is sent."""

    title: str
    body: str
    severity: Severity


def review(
    model: str, findings: Sequence[Finding], opened: Sequence[OpenAlert], done: Mapping[str, str], *, now: str
) -> tuple[list[Message], list[OpenAlert]]:
    """What to tell now, and the alerts that are open afterwards.

    An alert is over when all checks that opened it have passed; one that has too little data to say, or is being
    evaluated, keeps it open and opens none.

    Args:
        model: shown in titles.
        findings: what every check that has an answer says now.
        opened: what `review` returned last time.
        done: cause -> what was done about it, in words.
        now: the moment, ISO 8601.

    >>> broken = Finding("m/validated_messages:contract", Verdict.FAIL, Severity.PAGE, "9 % bad", "", "http://x")
    >>> told, opened = review("m", [broken], [], {}, now="2026-03-01T00:00:00+00:00")
    >>> told[0].title, review("m", [broken], opened, {}, now="2026-03-01T01:00:00+00:00")[0]
    ('m: data is broken', [])
    """
    failing: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.opens:
            failing.setdefault(finding.cause, []).append(finding)
    passed = {finding.check for finding in findings if finding.verdict is Verdict.PASS}
    before = {alert.cause: alert for alert in opened}
    messages, after = [], []
    for cause, group in failing.items():
        alert = _alert(cause, group, before.get(cause), passed, now)
        if cause not in before or (alert.severity is Severity.PAGE) > (before[cause].severity is Severity.PAGE):
            messages.append(_opened(model, alert, group, done.get(cause, "nothing")))
        after.append(alert)
    for alert in opened:
        if alert.cause not in failing:
            waiting = tuple(check for check in alert.checks if check not in passed)
            if waiting:
                after.append(OpenAlert(alert.cause, alert.severity, alert.since, waiting))
            else:
                messages.append(_resolved(model, alert, now))
    return messages, sorted(after, key=lambda alert: alert.cause)


def remember(opened: Sequence[OpenAlert]) -> list[dict[str, Any]]:
    """The open alerts as plain JSON types."""
    return [asdict(alert) for alert in opened]


def recall(document: Sequence[Mapping[str, Any]]) -> list[OpenAlert]:
    """The open alerts of such a document."""
    return [
        OpenAlert(entry["cause"], Severity(entry["severity"]), entry["since"], tuple(entry["checks"]))
        for entry in document
    ]


def _alert(cause: str, group: Sequence[Finding], before: OpenAlert | None, passed: set[str], now: str) -> OpenAlert:
    """The open alert of a cause; a page stays one until it is over."""
    urgent = any(finding.severity is Severity.PAGE for finding in group)
    was_page = before is not None and before.severity is Severity.PAGE
    still = {check for check in (before.checks if before else ()) if check not in passed}
    return OpenAlert(
        cause=cause,
        severity=Severity.PAGE if urgent or was_page else Severity.TICKET,
        since=before.since if before else now,
        checks=tuple(sorted(still | {finding.check for finding in group})),
    )


def _opened(model: str, alert: OpenAlert, group: Sequence[Finding], done: str) -> Message:
    most_urgent_first = sorted(group, key=lambda finding: (finding.severity is not Severity.PAGE, finding.check))
    said: dict[tuple[str, str], list[str]] = {}  # checks that say the same are one line
    for finding in most_urgent_first:
        said.setdefault((f" ({finding.window})" if finding.window else "", finding.message), []).append(finding.check)
    found = [f"- {', '.join(checks)}{window}: {message}" for (window, message), checks in said.items()]
    urls = dict.fromkeys(finding.url for finding in most_urgent_first)
    lines = [*found, f"Since {alert.since}.", f"Done about it: {done}.", *(f"Look at {url}" for url in urls)]
    return Message(f"{model}: {_title(alert.cause)}", "\n".join(lines), alert.severity)


def _resolved(model: str, alert: OpenAlert, now: str) -> Message:
    body = f"Open from {alert.since} to {now}. These pass again: {', '.join(alert.checks)}. Nothing to do."
    return Message(f"{model}: {_title(alert.cause)}: over", body, Severity.RESOLVED)


def _title(cause: str) -> str:
    asset, _, check = cause.rpartition(":")
    return _TITLES.get(cause) or f"check {check} of {asset.rpartition('/')[2]} fails"
