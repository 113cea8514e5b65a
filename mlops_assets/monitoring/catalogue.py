"""What is monitored in production: each monitor's question, cadence and window, and which may wake somebody.

How each judges is in `monitors` and `serving_monitors`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Monitor:
    """What a monitor asks, over which window, and how often.

    `looks` is how often a day it is looked at by the one who may be woken; None: it never wakes anybody.
    """

    name: str
    question: str
    cadence: str
    window: str
    looks: int | None = None


CATALOGUE = {
    monitor.name: monitor
    for monitor in (
        Monitor("f1", "Is the realised weighted F1 as promised?", "hourly", "a day of events, labels known by now", 24),
        Monitor("correctness", "Are answers as right as promised?", "hourly", "all labels of the version", 1),
        Monitor("estimated_f1", "Is the F1 expected from the confidences as promised?", "daily", "a day of events", 1),
        Monitor("prediction_mix", "Is the mix of predicted labels as in the reference?", "daily", "a day of events"),
        Monitor("feature_shift", "Are customer features as in the reference?", "daily", "a day of events"),
        Monitor("missing_values", "Are the required values there?", "at arrival", "a file of the inbox", 1),
        Monitor("latency", "Are answers fast enough?", "hourly", "300 answers or more, of 24 hours at most", 24),
        Monitor("throughput", "Do as many messages come as usual?", "hourly", "an hour, beside hours alike", 24),
        Monitor("processor", "Has the machine room to breathe?", "hourly", "the last hour"),
    )
}
LOOKS = {monitor.name: monitor.looks for monitor in CATALOGUE.values() if monitor.looks is not None}
