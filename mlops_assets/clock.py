"""The one clock. In production it is the wall clock; in a replay it is moved by the driver.

A replayed clock is a file that the endpoint's admin route writes and everybody reads, so that the
sensors, the assets and the endpoint agree on what "known by now" means.
"""

from __future__ import annotations

from datetime import UTC, datetime

from mlops_assets.settings import Settings
from mlops_assets.storage import read_json, write_json


class ClockNotSet(RuntimeError):
    """The settings ask for a replayed clock and nobody has set it yet."""


def now(settings: Settings) -> datetime:
    """The time of the platform, UTC.

    Raises:
        ClockNotSet: with ``MLOPS_REPLAY_CLOCK`` on, before the first ``POST /clock``.
    """
    if not settings.replay_clock:
        return datetime.now(UTC)
    path = settings.home / "clock.json"
    if not path.exists():
        raise ClockNotSet('MLOPS_REPLAY_CLOCK is on but the clock was never set: POST /clock {"now": "..."} first')
    return datetime.fromisoformat(read_json(path)["now"])


def move(settings: Settings, to: datetime) -> datetime:
    """Move the replayed clock forward; going back is refused, as time does.

    Raises:
        ValueError: replay is off, `to` has no time zone, or `to` lies before the present.
    """
    if not settings.replay_clock:
        raise ValueError("the clock is the wall clock; set MLOPS_REPLAY_CLOCK=true to replay time")
    if to.tzinfo is None:
        raise ValueError(f"{to.isoformat()} has no time zone; write it in UTC, e.g. {to.isoformat()}Z")
    path = settings.home / "clock.json"
    if path.exists() and to < now(settings):
        raise ValueError(f"the clock stands at {now(settings).isoformat()} and cannot go back to {to.isoformat()}")
    write_json(path, {"now": to.astimezone(UTC)})
    return to
