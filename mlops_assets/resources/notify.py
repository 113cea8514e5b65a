"""Tells people: a line in ``alerts.ndjson`` always, and each Apprise address that the settings name.

A sensor that cannot reach a chat must still finish its work, so failures are logged, not raised. What is
worth telling, and how urgent it is, is decided by the caller.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from mlops_assets.monitoring.alerts import Severity
from mlops_assets.settings import Settings

log = logging.getLogger("mlops_assets.notify")

_APPRISE_TYPE = {
    Severity.PAGE: "failure",
    Severity.TICKET: "warning",
    Severity.RESOLVED: "success",
}


def notify(settings: Settings, title: str, body: str, severity: Severity) -> None:
    """Send one alert to the log file and to every address; one that cannot be reached is logged, never raised."""
    _append(settings, title, body, severity)
    for number, url in enumerate(settings.notify_urls, start=1):
        _send(url, f"address {number}", title, body, severity)


def told(settings: Settings) -> list[dict[str, str]]:
    """Every alert so far, oldest first: `at`, `severity`, `title` and `body`."""
    path = _log_file(settings)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _log_file(settings: Settings) -> Path:
    return settings.home / "alerts.ndjson"


def _append(settings: Settings, title: str, body: str, severity: Severity) -> None:
    """One line, written in one piece and synced, so that a crash leaves whole lines."""
    record = {"at": datetime.now(UTC).isoformat(), "severity": severity.value, "title": title, "body": body}
    path = _log_file(settings)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        log.error("%s: %s; the alert was: %s", path, error, record)


def _send(url: str, name: str, title: str, body: str, severity: Severity) -> None:
    """An address is logged without its secrets."""
    import apprise

    target = apprise.Apprise.instantiate(url)
    if target is None:
        log.error("alert %r did not reach %s: in MLOPS_NOTIFY_URLS it is not an Apprise address", title, name)
    elif not target.notify(title=title, body=body, notify_type=apprise.NotifyType(_APPRISE_TYPE[severity])):
        log.error("alert %r did not reach %s", title, target.url(privacy=True))
